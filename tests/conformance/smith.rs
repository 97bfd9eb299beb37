//! Components that a generator makes up (wasm-smith): each is loaded, or refused with a reason.

use arbitrary::Unstructured;
use wasm_smith::{Component, Config, Module};
use wharf_runtime::{Candidate, Engine, Limits, Settings};

/// How many components, and how many modules.
const MADE_UP: u64 = 150;

/// Bytes that a generator chooses from.
const CHOICES: usize = 4096;

/// A reason that means that a reader or the compiler has panicked.
const PANICKED: &str = "failed, so the file";

fn choices(seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    std::iter::repeat_with(|| random.u8(..)).take(CHOICES).collect()
}

/// Loads it if it can be. Returns whether it was.
async fn try_it(engine: &Engine, bytes: Vec<u8>, what: &str) -> bool {
    let inspected = wharf_runtime::inspect(&bytes);
    let read = Candidate::read(bytes).await;
    let candidate = match read {
        Ok(candidate) => candidate,
        Err(error) => {
            assert!(!error.to_string().contains(PANICKED), "{what}: {error}");
            return false;
        }
    };
    assert!(inspected.is_ok(), "{what}: what the host reads, inspect reads");
    let limits = Limits {
        memory: 16 << 20,
        start_timeout: std::time::Duration::from_secs(2),
        ..Limits::default()
    };
    match candidate.load(engine, what, Settings { limits, ..Settings::default() }).await {
        Ok(_) => true,
        Err(error) => {
            assert!(!error.to_string().contains(PANICKED), "{what}: {error}");
            false
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_components_are_loaded_or_refused() {
    let engine = Engine::new(None).unwrap();
    let mut made = 0;
    for seed in 0..MADE_UP {
        let bytes = choices(seed);
        let component = Component::new(Config::default(), &mut Unstructured::new(&bytes));
        let Ok(component) = component else { continue };
        made += 1;
        try_it(&engine, component.to_bytes(), &format!("component {seed}")).await;
    }
    assert!(made > MADE_UP / 2, "{made} were made");
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_modules_inside_of_a_component_are_loaded_or_refused() {
    let engine = Engine::new(None).unwrap();
    let mut loaded = 0;
    for seed in 0..MADE_UP {
        let bytes = choices(seed);
        let config = Config {
            allow_start_export: true,
            max_imports: 0,
            max_memory32_bytes: 1 << 20,
            ..Config::default()
        };
        let Ok(module) = Module::new(config, &mut Unstructured::new(&bytes)) else { continue };
        // Beside a module whose function is served. The made-up one is instantiated too, so its start
        // function runs.
        let served = r#"(module (func (export "f") (result i32) i32.const 7))"#;
        let component = beside(&module.to_bytes(), &wat::parse_str(served).unwrap());
        loaded += u32::from(try_it(&engine, component, &format!("module {seed}")).await);
    }
    println!("{loaded} of {MADE_UP} were loaded");
    assert!(loaded > 5, "{loaded}");
}

/// A component that instantiates two modules, and serves `a:b/x` with the function of the second.
fn beside(made_up: &[u8], served: &[u8]) -> Vec<u8> {
    use wasm_encoder::{
        Alias, CanonicalFunctionSection, CanonicalOption, Component, ComponentAliasSection,
        ComponentExportKind, ComponentExportSection, ComponentInstanceSection, ComponentSectionId,
        ComponentTypeSection, ComponentValType, ExportKind, InstanceSection, ModuleArg,
        PrimitiveValType, RawSection,
    };

    let module = |data| RawSection { id: ComponentSectionId::CoreModule.into(), data };
    let nothing: [(&str, ModuleArg); 0] = [];
    let mut instances = InstanceSection::new();
    instances.instantiate(0, nothing);
    instances.instantiate(1, nothing);
    let mut aliases = ComponentAliasSection::new();
    aliases.alias(Alias::CoreInstanceExport { instance: 1, kind: ExportKind::Func, name: "f" });
    let mut types = ComponentTypeSection::new();
    let no_params: [(&str, ComponentValType); 0] = [];
    let number = ComponentValType::Primitive(PrimitiveValType::U32);
    types.ty().function().params(no_params).result(Some(number));
    let mut lifts = CanonicalFunctionSection::new();
    let no_options: [CanonicalOption; 0] = [];
    lifts.lift(0, 0, no_options);
    let mut interfaces = ComponentInstanceSection::new();
    interfaces.export_items([("f", ComponentExportKind::Func, 0)]);
    let mut exports = ComponentExportSection::new();
    exports.export("a:b/x", ComponentExportKind::Instance, 0, None);
    let mut component = Component::new();
    component
        .section(&module(made_up))
        .section(&module(served))
        .section(&instances)
        .section(&aliases)
        .section(&types)
        .section(&lifts)
        .section(&interfaces)
        .section(&exports);
    component.finish()
}
