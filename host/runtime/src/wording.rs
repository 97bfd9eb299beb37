//! Recognizes errors of libraries by their wording, where a library offers no other way.
//!
//! Each function has a test against the library itself. The test fails when an update changes the
//! words.

/// Whether wasmtime ended a call because its values took more bytes than the fuel allows
/// (`Store::set_hostcall_fuel`).
pub(crate) fn is_out_of_copying_fuel(cause: &str) -> bool {
    cause.contains("too much data is being copied")
}

/// Whether a component could not be decoded because its bytes are cut off.
pub(crate) fn is_truncated(error: &str) -> bool {
    error.contains("unexpected end")
}

#[cfg(test)]
mod tests {
    use wasmtime::component::{Component, Linker};
    use wasmtime::{Engine, Store};

    use super::*;

    /// Returns a list of 64 KiB.
    const GENEROUS: &str = r#"(component
        (core module $m
            (memory (export "memory") 2)
            (func (export "f") (result i32)
                (i32.store (i32.const 0) (i32.const 8))
                (i32.store (i32.const 4) (i32.const 65536))
                (i32.const 0)))
        (core instance $i (instantiate $m))
        (func (export "f") (result (list u8))
            (canon lift (core func $i "f") (memory $i "memory"))))"#;

    #[test]
    fn wasmtime_still_says_of_too_much_data_what_is_looked_for() {
        let engine = Engine::default();
        let component = Component::new(&engine, wat::parse_str(GENEROUS).unwrap()).unwrap();
        let mut store = Store::new(&engine, ());
        let instance = Linker::new(&engine).instantiate(&mut store, &component).unwrap();
        let f = instance.get_typed_func::<(), (Vec<u8>,)>(&mut store, "f").unwrap();
        assert_eq!(f.call(&mut store, ()).unwrap().0.len(), 65536);
        store.set_hostcall_fuel(1024);
        let error = f.call(&mut store, ()).unwrap_err();
        assert!(is_out_of_copying_fuel(&error.root_cause().to_string()), "{error:?}");
    }

    #[test]
    fn the_decoder_still_says_of_cut_bytes_what_is_looked_for() {
        let bytes = wat::parse_str(GENEROUS).unwrap();
        for length in [bytes.len() - 1, bytes.len() / 2, 9] {
            let error = wit_component::decode(&bytes[..length]).err().unwrap();
            assert!(is_truncated(&format!("{error:?}")), "{length}: {error:?}");
        }
    }
}
