//! Returns its argument, for every kind of type.

// The generated bindings are not ours to lint.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::pedantic)]
mod bindings {
    use super::Plugin;

    wit_bindgen::generate!({ path: "wit", world: "guest" });
    export!(Plugin);
}

use bindings::exports::test::zoo::zoo;

struct Plugin;

macro_rules! give_back {
    ($($method:ident: $ty:ty;)*) => {
        $(fn $method(x: $ty) -> $ty {
            x
        })*
    };
}

impl zoo::Guest for Plugin {
    give_back! {
        give_numbers: zoo::Numbers;
        give_nested: zoo::Nested;
        give_shape: zoo::Shape;
        give_color: zoo::Color;
        give_few: zoo::Few;
        give_several: zoo::Several;
        give_many: zoo::Many;
        give_name: zoo::Name;
        give_bytes: Vec<u8>;
        give_list: Vec<zoo::Nested>;
        give_option: Option<Vec<u8>>;
        give_tuple: (i8, String);
        give_result: Result<String, zoo::Shape>;
    }

    fn may_fail(fail: bool) -> Result<(), ()> {
        if fail { Err(()) } else { Ok(()) }
    }

    fn nothing() {}

    fn sum(
        a: u64,
        b: u64,
        c: u64,
        d: u64,
        e: u64,
        f: u64,
        g: u64,
        h: u64,
        i: u64,
        j: u64,
        k: u64,
        l: u64,
        m: u64,
        n: u64,
        o: u64,
        p: u64,
        q: u64,
        type_: String,
    ) -> u64 {
        let all = [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, type_.len() as u64];
        all.iter().sum()
    }
}
