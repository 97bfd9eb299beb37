//! Which WebAssembly features plugins may use. The engine, the codec's check and `inspect` share them.

use wasmparser::{Validator, WasmFeatures};

use crate::LoadError;

/// What the engine runs: WebAssembly 3 and components, without what needs a garbage collector or
/// threads of guests.
pub(crate) fn supported() -> WasmFeatures {
    let without = WasmFeatures::GC_TYPES | WasmFeatures::EXCEPTIONS | WasmFeatures::THREADS;
    let with = WasmFeatures::COMPONENT_MODEL | WasmFeatures::CM_FIXED_LENGTH_LISTS;
    (WasmFeatures::WASM3 | with) - without
}

/// Features that compilers use and the engine does not run, with the names that people know.
const UNSUPPORTED: [(WasmFeatures, &str); 10] = [
    (WasmFeatures::EXCEPTIONS, "exceptions"),
    (WasmFeatures::LEGACY_EXCEPTIONS, "exceptions in their old encoding"),
    (WasmFeatures::GC_TYPES, "garbage collection"),
    (WasmFeatures::THREADS, "threads"),
    (WasmFeatures::STACK_SWITCHING, "stack switching"),
    (WasmFeatures::WIDE_ARITHMETIC, "wide arithmetic"),
    (WasmFeatures::CUSTOM_PAGE_SIZES, "custom page sizes"),
    (ASYNC, "asynchronous components (WASI 0.3)"),
    (WasmFeatures::CM_ERROR_CONTEXT, "error contexts"),
    (WasmFeatures::CM64, "64-bit components"),
];

const ASYNC: WasmFeatures = WasmFeatures::CM_ASYNC
    .union(WasmFeatures::CM_ASYNC_STACKFUL)
    .union(WasmFeatures::CM_MORE_ASYNC_BUILTINS)
    .union(WasmFeatures::CM_THREADING);

/// Checks a component as the engine does, without compiling it.
pub(crate) fn check(bytes: &[u8]) -> Result<(), LoadError> {
    let valid = |features| Validator::new_with_features(features).validate_all(bytes);
    let Err(error) = valid(supported()) else { return Ok(()) };
    let all = UNSUPPORTED.iter().fold(supported(), |all, (feature, _)| all | *feature);
    if valid(all).is_err() {
        return Err(LoadError::Invalid(error.to_string()));
    }
    // It needs each feature without which it is not valid.
    let needed = UNSUPPORTED.iter().filter(|(feature, _)| valid(all - *feature).is_err());
    Err(LoadError::Features(needed.map(|(_, name)| *name).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn component(module: &str) -> Vec<u8> {
        wat::parse_str(format!("(component (core module {module}))")).unwrap()
    }

    #[test]
    fn the_engine_and_this_check_agree() {
        let engine = crate::Engine::new(None).unwrap();
        for module in [
            "(func (param v128) (drop (i32x4.add (local.get 0) (local.get 0))))",
            "(memory 1) (memory 1)",
            "(memory i64 1)",
            "(func $f (return_call $f))",
            "(table 1 externref)",
            "(table 1 anyref)",
            "(type (struct (field i32)))",
            "(tag) (func (throw 0))",
            "(memory 1 1 shared)",
            "(memory 1 (pagesize 1))",
            "(func (param i64 i64) (result i64 i64) local.get 0 local.get 1 i64.mul_wide_u)",
            "(type $f (func)) (func (param (ref $f)) (call_ref $f (local.get 0)))",
        ] {
            let bytes = component(module);
            let runs = wasmtime::component::Component::from_binary(&engine.wasmtime, &bytes);
            let checked = check(&bytes);
            assert_eq!(checked.is_ok(), runs.is_ok(), "{module}: {checked:?}, {:?}", runs.err());
        }
    }

    #[test]
    fn a_feature_that_is_not_run_is_named() {
        for (module, name) in [
            ("(tag) (func (throw 0))", "exceptions"),
            ("(type (struct (field i32)))", "garbage collection"),
            ("(memory 1 1 shared)", "threads"),
        ] {
            let error = check(&component(module)).unwrap_err().to_string();
            assert!(error.contains(&format!("does not run: {name}; build it without")), "{error}");
        }
        let error = check(b"\0asm\x0d\0\x01\0\xff").unwrap_err();
        assert!(matches!(error, LoadError::Invalid(_)), "{error}");
    }
}
