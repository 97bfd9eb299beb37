//! Go's `Arith`, as a Wharf service: two integers in, their product or quotient out.
//!
//! It takes a WIT interface, wit-bindgen, and the functions. Wharf needs only one optional line,
//! which embeds the interface's documentation.

// The generated bindings are not ours to lint.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::pedantic)]
mod bindings {
    use super::Plugin;

    wit_bindgen::generate!({ path: "wit", world: "plugin" });
    export!(Plugin);
}

use bindings::exports::demo::arith::arith::{Args, ArithError, Guest, Quotient};

wharf_guest::wit_docs!("wit/arith.wit");

struct Plugin;

impl Guest for Plugin {
    fn multiply(args: Args) -> i64 {
        args.a.wrapping_mul(args.b)
    }

    fn divide(Args { a, b }: Args) -> Result<Quotient, ArithError> {
        if b == 0 {
            return Err(ArithError::DivideByZero);
        }
        let quo = a.checked_div(b).ok_or(ArithError::Overflow(a))?;
        Ok(Quotient { quo, rem: a % b })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn division_refuses_zero_and_the_one_overflow() {
        let divide = |a, b| Plugin::divide(Args { a, b });
        assert!(matches!(divide(7, 2), Ok(Quotient { quo: 3, rem: 1 })));
        assert!(matches!(divide(-7, 2), Ok(Quotient { quo: -3, rem: -1 })));
        assert!(matches!(divide(7, 0), Err(ArithError::DivideByZero)));
        assert!(matches!(divide(i64::MIN, -1), Err(ArithError::Overflow(i64::MIN))));
    }
}
