//! Handwritten guests. WIT and a core module in the text format are made into a component.

use anyhow::Context;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

use crate::plugin;

/// Makes a component from a WIT package with one world, and a core module that implements it.
///
/// # Errors
/// When the two do not fit each other.
pub fn component(wit: &str, module: &str) -> anyhow::Result<Vec<u8>> {
    component_of(wit, wat::parse_str(module)?, StringEncoding::UTF8)
}

/// Like [`component`], with strings in UTF-16.
///
/// # Errors
/// When the two do not fit each other.
pub fn component_in_utf16(wit: &str, module: &str) -> anyhow::Result<Vec<u8>> {
    component_of(wit, wat::parse_str(module)?, StringEncoding::UTF16)
}

fn component_of(
    wit: &str,
    mut module: Vec<u8>,
    strings: StringEncoding,
) -> anyhow::Result<Vec<u8>> {
    let mut resolve = Resolve::default();
    let package = resolve.push_source("guest.wit", wit)?;
    let world = resolve.select_world(&[package], None)?;
    embed_component_metadata(&mut module, &resolve, world, strings)?;
    ComponentEncoder::default().validate(true).module(&module)?.encode().context("encoding")
}

/// `demo:arith/arith@0.1.0`, whose `multiply` has another signature: the same fields in another
/// order.
///
/// # Errors
/// When it cannot be made.
pub fn arith_reordered() -> anyhow::Result<Vec<u8>> {
    component(
        "package demo:arith@0.1.0;
         interface arith { record args { b: s64, a: s64 } multiply: func(args: args) -> s64; }
         world plugin { export arith; }",
        r#"(module (memory (export "memory") 1)
            (func (export "demo:arith/arith@0.1.0#multiply") (param i64 i64) (result i64) (local.get 0)))"#,
    )
}

/// `demo:arith/arith@0.1.0`, whose `multiply` computes something else. `body` is WebAssembly text
/// that uses the locals 0 and 1.
///
/// # Errors
/// When the body is not valid.
pub fn arith_that(body: &str) -> anyhow::Result<Vec<u8>> {
    component(
        "package demo:arith@0.1.0;
         interface arith {
             record args { a: s64, b: s64 }
             multiply: func(args: args) -> s64;
         }
         world plugin { export arith; }",
        &format!(
            r#"(module
                (memory (export "memory") 1)
                (func (export "demo:arith/arith@0.1.0#multiply") (param i64 i64) (result i64) {body}))"#
        ),
    )
}

/// A guest that misbehaves. Each method does it in another way.
///
/// # Errors
/// When it cannot be made.
pub fn hostile() -> anyhow::Result<Vec<u8>> {
    component(
        "package test:hostile@1.0.0;
         interface hostile {
             /// Never returns.
             spin: func();
             /// Executes `unreachable`.
             trap: func();
             /// Recurses until the stack ends.
             recurse: func() -> u32;
             /// Grows its memory page by page until it is refused, then traps.
             gorge: func();
             /// Answers as many zero bytes as asked for.
             zeros: func(count: u32) -> list<u8>;
             /// Claims a result beyond its memory.
             lie: func() -> list<u8>;
             /// An enum of two cases, with the discriminant asked for.
             discriminant: func(of: u32) -> answer;
             /// How often it was called in this instance.
             count: func() -> u32;
             enum answer { yes, no }
         }
         world plugin { export hostile; }",
        r#"(module
            (memory (export "memory") 1)
            (global $calls (mut i32) (i32.const 0))
            (func (export "test:hostile/hostile@1.0.0#spin") (loop (br 0)))
            (func (export "test:hostile/hostile@1.0.0#trap") unreachable)
            (func $recurse (export "test:hostile/hostile@1.0.0#recurse") (result i32)
                (i32.add (call $recurse) (i32.const 1)))
            (func (export "test:hostile/hostile@1.0.0#gorge")
                (loop $more
                    (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1))))
                unreachable)
            (func (export "test:hostile/hostile@1.0.0#zeros") (param $count i32) (result i32)
                (local $pages i32)
                (local.set $pages (i32.sub
                    (i32.add (i32.div_u (local.get $count) (i32.const 65536)) (i32.const 2))
                    (memory.size)))
                (if (i32.gt_s (local.get $pages) (i32.const 0))
                    (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1))
                        (then unreachable))))
                (i32.store (i32.const 0) (i32.const 16))
                (i32.store (i32.const 4) (local.get $count))
                (i32.const 0))
            (func (export "test:hostile/hostile@1.0.0#lie") (result i32)
                (i32.store (i32.const 0) (i32.const 65000))
                (i32.store (i32.const 4) (i32.const 1000000))
                (i32.const 0))
            (func (export "test:hostile/hostile@1.0.0#discriminant") (param i32) (result i32)
                (local.get 0))
            (func (export "test:hostile/hostile@1.0.0#count") (result i32)
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (global.get $calls)))"#,
    )
}

/// Copies of the example services, each with its own namespace: `a000:arith`, `t001:textkit` and so
/// on. Returns each copy with its namespace.
///
/// # Errors
/// When the examples are not built.
pub fn renamed(count: usize) -> anyhow::Result<Vec<(Vec<u8>, String)>> {
    let (arith, textkit) = (plugin("arith")?, plugin("textkit")?);
    let copies = (0..count).map(|index| {
        let (original, letter) = if index % 2 == 0 { (&arith, 'a') } else { (&textkit, 't') };
        // As long as the name that it replaces, so that every length in the file stays correct.
        let namespace = format!("{letter}{index:03}");
        (replace(original, b"demo:", format!("{namespace}:").as_bytes()), namespace)
    });
    Ok(copies.collect())
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let mut replaced = bytes.to_vec();
    for start in 0..bytes.len().saturating_sub(from.len()) {
        if bytes[start..].starts_with(from) {
            replaced[start..start + to.len()].copy_from_slice(to);
        }
    }
    replaced
}

/// A section with one memory of this many pages.
fn memory(pages: u64) -> wasm_encoder::MemorySection {
    let mut memories = wasm_encoder::MemorySection::new();
    memories.memory(wasm_encoder::MemoryType {
        minimum: pages,
        maximum: None,
        memory64: false,
        shared: false,
        page_size_log2: None,
    });
    memories
}

/// A component `test:big/big` with at least this many bytes of code.
///
/// # Errors
/// When it cannot be made.
pub fn big(bytes: usize) -> anyhow::Result<Vec<u8>> {
    use wasm_encoder::{
        CodeSection, ExportKind, ExportSection, Function, FunctionSection, Module, TypeSection,
        ValType,
    };
    const STEPS: usize = 512;
    let (mut types, mut functions, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([ValType::I64], [ValType::I64]);
    let mut seed = 1i64;
    while code.byte_len() < bytes {
        functions.function(0);
        let mut function = Function::new([]);
        let mut body = function.instructions();
        for _ in 0..STEPS {
            // Each function has other numbers, so that no two are equal.
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            body.local_get(0).i64_const(seed).i64_mul().local_set(0);
        }
        body.local_get(0).end();
        code.function(&function);
    }
    let memories = memory(1);
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("test:big/big@1.0.0#mix", ExportKind::Func, 0);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports).section(&code);
    component_of(
        "package test:big@1.0.0;
         interface big { mix: func(seed: s64) -> s64; }
         world plugin { export big; }",
        module.finish(),
        StringEncoding::UTF8,
    )
}

/// A component whose start function never returns.
///
/// # Errors
/// When it cannot be made.
pub fn never_starts() -> anyhow::Result<Vec<u8>> {
    component(
        "package test:stuck@1.0.0;
         interface stuck { f: func(); }
         world plugin { export stuck; }",
        r#"(module
            (memory (export "memory") 1)
            (func $loop (loop (br 0)))
            (start $loop)
            (func (export "test:stuck/stuck@1.0.0#f")))"#,
    )
}

/// A component with an import that Wharf does not provide.
///
/// # Errors
/// When it cannot be made.
pub fn imports_the_unknown() -> anyhow::Result<Vec<u8>> {
    component(
        "package test:lost@1.0.0;
         interface lost { f: func(); }
         world plugin { import acme:secret/sauce@1.0.0; export lost; }
         package acme:secret@1.0.0 { interface sauce { stir: func(); } }",
        r#"(module
            (import "acme:secret/sauce@1.0.0" "stir" (func))
            (memory (export "memory") 1)
            (func (export "test:lost/lost@1.0.0#f")))"#,
    )
}

/// A component with this many methods. `m0` returns 0, `m1` returns 1 and so on.
///
/// # Errors
/// When it cannot be made.
pub fn many_methods(count: u32) -> anyhow::Result<Vec<u8>> {
    use std::fmt::Write;

    let (mut wit, mut module) = (String::new(), String::new());
    for number in 0..count {
        writeln!(wit, "m{number}: func() -> u32;")?;
        writeln!(
            module,
            r#"(func (export "test:many/many@1.0.0#m{number}") (result i32) (i32.const {number}))"#
        )?;
    }
    component(
        &format!(
            "package test:many@1.0.0; interface many {{ {wit} }} world plugin {{ export many; }}"
        ),
        &format!(r#"(module (memory (export "memory") 1) {module})"#),
    )
}

/// A component with this many mebibytes of initial memory. `at` returns a byte of it.
///
/// # Errors
/// When it cannot be made.
pub fn heavy(mebibytes: usize) -> anyhow::Result<Vec<u8>> {
    use wasm_encoder::{
        CodeSection, ConstExpr, DataSection, ExportKind, ExportSection, Function, FunctionSection,
        MemArg, Module, TypeSection, ValType,
    };
    let (mut types, mut functions, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([ValType::I32], [ValType::I32]);
    functions.function(0);
    let mut function = Function::new([]);
    let byte = MemArg { offset: 0, align: 0, memory_index: 0 };
    function.instructions().local_get(0).i32_load8_u(byte).end();
    code.function(&function);
    let memories = memory(mebibytes as u64 * 16);
    let mut exports = ExportSection::new();
    exports.export("memory", ExportKind::Memory, 0);
    exports.export("test:heavy/heavy@1.0.0#at", ExportKind::Func, 0);
    let mut data = DataSection::new();
    data.active(0, &ConstExpr::i32_const(0), std::iter::repeat_n(7u8, mebibytes << 20));
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&memories).section(&exports);
    module.section(&code).section(&data);
    component_of(
        "package test:heavy@1.0.0;
         interface heavy { at: func(address: u32) -> u8; }
         world plugin { export heavy; }",
        module.finish(),
        StringEncoding::UTF8,
    )
}

/// Appends a custom section to the component `bytes`.
#[must_use]
pub fn with_section(bytes: &[u8], name: &str, content: &[u8]) -> Vec<u8> {
    use wasm_encoder::{ComponentSection, CustomSection};

    let section = CustomSection { name: name.into(), data: content.into() };
    let mut extended = bytes.to_vec();
    section.append_to_component(&mut extended);
    extended
}

/// A small component that a compiler needs much memory and time for: a function with nested blocks of
/// many results, and a jump to each of them.
///
/// # Errors
/// When it cannot be made.
pub fn hard_to_compile(blocks: u32, results: usize) -> anyhow::Result<Vec<u8>> {
    use wasm_encoder::{
        BlockType, CodeSection, ExportKind, ExportSection, Function, FunctionSection, Module,
        TypeSection, ValType,
    };
    let (mut types, mut functions, mut code) =
        (TypeSection::new(), FunctionSection::new(), CodeSection::new());
    types.ty().function([], []);
    types.ty().function([], std::iter::repeat_n(ValType::I32, results));
    functions.function(0).function(1);
    let mut hard = Function::new([]);
    let mut body = hard.instructions();
    for _ in 0..blocks {
        body.block(BlockType::FunctionType(1));
    }
    body.call(1).i32_const(0).br_table(0..blocks - 1, blocks - 1);
    for _ in 0..blocks {
        body.end();
    }
    for _ in 0..results {
        body.drop();
    }
    body.end();
    code.function(&hard);
    let mut many = Function::new([]);
    many.instructions().unreachable().end();
    code.function(&many);
    let mut exports = ExportSection::new();
    exports.export("test:hard/hard@1.0.0#f", ExportKind::Func, 0);
    let mut module = Module::new();
    module.section(&types).section(&functions).section(&exports).section(&code);
    component_of(
        "package test:hard@1.0.0;
         interface hard { f: func(); }
         world plugin { export hard; }",
        module.finish(),
        StringEncoding::UTF8,
    )
}
