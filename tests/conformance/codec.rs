//! The codec that is spliced into components, against the path over dynamic values: types and values
//! are made up, and both give the same bytes and the same errors.

use std::fmt::Write;
use std::time::{Duration, Instant};

use bytes::Bytes;
use wharf_runtime::{CallError, Candidate, Engine, MethodIndex, Plugin, Settings};
use wharf_schema::encoding::{put_bytes, put_char, put_flags, put_signed, put_unsigned};
use wharf_schema::{Service, Type, TypeId, Types};
use wharf_tests::{component, guest, plugin};

/// A plugin through both paths.
struct Both {
    codec: Plugin,
    dynamic: Plugin,
}

impl Both {
    async fn load(wasm: Vec<u8>) -> Self {
        let engine = Engine::new(None).unwrap();
        let candidate = Candidate::read(wasm).await.unwrap();
        let dynamic = candidate.clone().without_codec();
        let codec = candidate.load(&engine, "codec", Settings::default()).await.unwrap();
        let dynamic = dynamic.load(&engine, "dynamic", Settings::default()).await.unwrap();
        Both { codec, dynamic }
    }

    /// The service that has methods; another one may have only types.
    fn index(&self) -> usize {
        let services = self.codec.services();
        services.iter().position(|service| !service.methods().is_empty()).unwrap()
    }

    fn service(&self) -> &Service {
        &self.codec.services()[self.index()]
    }

    /// Calls a method on both: the same result, or no result from either, in whatever words.
    async fn call_alike(&self, method: usize, arguments: &[u8]) {
        let index = MethodIndex { service: self.index(), method };
        let deadline = Instant::now() + Duration::from_secs(20);
        let call = |plugin: &Plugin| {
            plugin.clone().call(index, Bytes::copy_from_slice(arguments), Instant::now(), deadline)
        };
        let (codec, dynamic) = (call(&self.codec).await, call(&self.dynamic).await);
        assert_eq!(codec.as_ref().ok(), dynamic.as_ref().ok(), "{codec:?}, {dynamic:?}");
        let traps = |result: &Result<Bytes, CallError>| {
            matches!(result, Ok(_) | Err(CallError::Trapped { .. }))
        };
        assert!(traps(&codec) && traps(&dynamic), "{codec:?}, {dynamic:?}");
    }

    /// Calls a method on both; what either says is what the other says.
    async fn call(&self, method: usize, arguments: &[u8]) -> Result<Bytes, CallError> {
        let index = MethodIndex { service: self.index(), method };
        let deadline = Instant::now() + Duration::from_secs(20);
        let call = |plugin: &Plugin| {
            plugin.clone().call(index, Bytes::copy_from_slice(arguments), Instant::now(), deadline)
        };
        let (codec, dynamic) = (call(&self.codec).await, call(&self.dynamic).await);
        let name = || self.service().notation(&self.service().methods()[method]);
        match (&codec, &dynamic) {
            (Ok(codec), Ok(dynamic)) => {
                assert_eq!(codec, dynamic, "{} of {arguments:?}", name());
            }
            (Err(codec), Err(dynamic)) => {
                assert_eq!(codec.to_string(), dynamic.to_string(), "{} of {arguments:?}", name());
            }
            _ => panic!("{} of {arguments:?}: {codec:?}, {dynamic:?}", name()),
        }
        codec
    }
}

/// A type as WIT, at most so deep.
fn type_text(random: &mut fastrand::Rng, depth: u32, named: &mut Vec<String>) -> String {
    let scalars = [
        "bool", "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f32", "f64", "char",
        "string", "list<u8>",
    ];
    if depth == 0 {
        return random.choice(scalars).unwrap().to_owned();
    }
    let mut inner = |random: &mut fastrand::Rng| type_text(random, depth - 1, named);
    match random.u32(0..12) {
        0 | 1 => format!("list<{}>", inner(random)),
        2 => format!("option<{}>", inner(random)),
        3 => format!("result<{}, {}>", inner(random), inner(random)),
        4 => match random.u32(0..3) {
            0 => "result".to_owned(),
            1 => format!("result<{}>", inner(random)),
            _ => format!("result<_, {}>", inner(random)),
        },
        5 => {
            let parts: Vec<String> = (0..random.u32(1..4)).map(|_| inner(random)).collect();
            format!("tuple<{}>", parts.join(", "))
        }
        6 => format!("list<{}, {}>", inner(random), random.u32(1..4)),
        7 | 8 => {
            let mut fields = String::new();
            for n in 0..random.u32(1..5) {
                write!(fields, "f{n}x: {}, ", inner(random)).unwrap();
            }
            name(named, "record", &fields)
        }
        9 => {
            let mut cases = String::new();
            for n in 0..random.u32(1..5) {
                let payload =
                    if random.bool() { format!("({})", inner(random)) } else { String::new() };
                write!(cases, "c{n}x{payload}, ").unwrap();
            }
            name(named, "variant", &cases)
        }
        kind => {
            // So many that they take one, two or four bytes; flags end at 32.
            let count = match kind {
                10 => *random.choice(&[1, 7, 8, 9, 16, 17, 31, 32]).unwrap(),
                _ => *random.choice(&[1, 2, 255, 256, 257, 300]).unwrap(),
            };
            let names: Vec<String> = (0..count).map(|n| format!("n{n}x")).collect();
            let kind = if kind == 10 { "flags" } else { "enum" };
            name(named, kind, &names.join(", "))
        }
    }
}

/// Gives a type a name, as WIT wants it.
fn name(named: &mut Vec<String>, kind: &str, members: &str) -> String {
    let name = format!("t{}x", named.len());
    named.push(format!("{kind} {name} {{ {members} }}"));
    name
}

/// A service that gives back what it takes, in memory and flat, for each type.
///
/// What is passed in memory comes back at the same place; what is passed flat comes back as the list of
/// all core values; a result of one core value is the parameter itself.
fn echo(random: &mut fastrand::Rng, count: usize) -> Vec<u8> {
    let (mut named, mut functions, mut wat) = (Vec::new(), String::new(), String::new());
    let export = |name: &str| format!("(export \"test:echo/echo@1.0.0#{name}\")");
    // So many that no more values are passed flat.
    let padding = vec!["u8"; 17].join(", ");
    let mut flats = Vec::new();
    for n in 0..count {
        let depth = random.u32(0..4);
        let ty = type_text(random, depth, &mut named);
        writeln!(
            functions,
            "m{n}x: func(x: tuple<{ty}, tuple<{padding}>>) -> tuple<{ty}, tuple<{padding}>>;"
        )
        .unwrap();
        writeln!(
            wat,
            "(func {} (param i32) (result i32) (local.get 0))",
            export(&format!("m{n}x"))
        )
        .unwrap();
        flats.push(ty);
    }
    for (n, ty) in flats.iter().enumerate() {
        writeln!(functions, "f{n}x: func(x: {ty}) -> list<u64>;").unwrap();
    }
    let wit = |functions: &str| {
        format!(
            "package test:echo@1.0.0; interface echo {{ {} {functions} pages: func() -> u32; }}
             world plugin {{ export echo; }}",
            named.join(" ")
        )
    };
    // The core types of the flat ones are asked of the encoder's own library.
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_source("echo.wit", &wit(&functions)).unwrap();
    let interface = &resolve.interfaces[resolve.packages[package].interfaces["echo"]];
    for n in 0..count {
        let name = format!("f{n}x");
        let function = &interface.functions[&name];
        let signature = resolve.wasm_signature(wit_parser::abi::AbiVariant::GuestExport, function);
        let core = |ty: &wit_parser::abi::WasmType| match ty {
            wit_parser::abi::WasmType::I64 | wit_parser::abi::WasmType::PointerOrI64 => "i64",
            wit_parser::abi::WasmType::F32 => "f32",
            wit_parser::abi::WasmType::F64 => "f64",
            _ => "i32",
        };
        let params: Vec<&str> = signature.params.iter().map(core).collect();
        write!(wat, "(func {} (param {}) (result i32)", export(&name), params.join(" ")).unwrap();
        for (place, ty) in params.iter().enumerate() {
            let value = match *ty {
                "i64" => format!("(local.get {place})"),
                "f32" => format!("(i64.extend_i32_u (i32.reinterpret_f32 (local.get {place})))"),
                "f64" => format!("(i64.reinterpret_f64 (local.get {place}))"),
                _ => format!("(i64.extend_i32_u (local.get {place}))"),
            };
            write!(wat, "(i64.store (i32.const {}) {value})", 64 + 8 * place).unwrap();
        }
        writeln!(
            wat,
            "(i32.store (i32.const 16) (i32.const 64)) (i32.store (i32.const 20) (i32.const {}))
             (i32.const 16))",
            params.len()
        )
        .unwrap();
    }
    for (name, results) in
        (0..count).flat_map(|n| [(format!("m{n}x"), "i32"), (format!("f{n}x"), "i32")])
    {
        writeln!(
            wat,
            "(func (export \"cabi_post_test:echo/echo@1.0.0#{name}\") (param {results})
               (global.set $free (i32.const 1024)))"
        )
        .unwrap();
    }
    component(
        &wit(&functions),
        &format!(
            r#"(module
                (memory (export "memory") 1)
                (global $free (mut i32) (i32.const 1024))
                (func {pages} (result i32) (memory.size))
                (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (local $at i32)
                    (local.set $at (i32.and
                        (i32.add (global.get $free) (i32.sub (local.get 2) (i32.const 1)))
                        (i32.sub (i32.const 0) (local.get 2))))
                    (global.set $free (i32.add (local.get $at) (local.get 3)))
                    (loop $more
                        (if (i32.gt_u (global.get $free) (i32.mul (memory.size) (i32.const 65536)))
                            (then (br_if $more (i32.ne (memory.grow (i32.const 16)) (i32.const -1)))
                                  unreachable)))
                    (local.get $at))
                {wat})"#,
            pages = export("pages"),
        ),
    )
    .unwrap()
}

/// A value of a type, encoded.
fn value(random: &mut fastrand::Rng, types: &Types, ty: TypeId, out: &mut Vec<u8>) {
    let edge = |random: &mut fastrand::Rng| {
        let bits = random.u32(0..65);
        if bits == 0 { 0 } else { random.u64(..) >> (64 - bits) }
    };
    match &types[ty] {
        Type::Bool => out.push(random.bool().into()),
        Type::U8 | Type::S8 => out.push(random.u8(..)),
        Type::U16 => put_unsigned(out, edge(random) & 0xffff),
        Type::U32 => put_unsigned(out, edge(random) & 0xffff_ffff),
        Type::U64 => put_unsigned(out, edge(random)),
        Type::S16 => put_signed(out, random.i16(..).into()),
        Type::S32 => put_signed(out, random.i32(..).into()),
        Type::S64 => put_signed(out, edge(random).cast_signed()),
        // Any bits at all would do, but both paths may change a NaN's.
        Type::F32 => out.extend(random.f32().to_le_bytes()),
        Type::F64 => out.extend((random.f64() * 1e300).to_le_bytes()),
        Type::Char => put_char(out, random.char(..)),
        Type::String => {
            let text: String = (0..random.usize(0..20)).map(|_| random.char(..)).collect();
            let text = if random.bool() { "ascii ".repeat(text.len()) } else { text };
            put_bytes(out, text.as_bytes());
        }
        Type::Bytes => {
            let bytes: Vec<u8> = (0..random.usize(0..50)).map(|_| random.u8(..)).collect();
            put_bytes(out, &bytes);
        }
        Type::List(element) => {
            let len = random.usize(0..5);
            put_unsigned(out, len as u64);
            (0..len).for_each(|_| value(random, types, *element, out));
        }
        Type::FixedList(element, len) => {
            (0..*len).for_each(|_| value(random, types, *element, out));
        }
        Type::Tuple(_) | Type::Record(_) => {
            let parts: Vec<TypeId> = types[ty].parts().collect();
            parts.into_iter().for_each(|part| value(random, types, part, out));
        }
        Type::Variant(cases) => {
            let case = random.usize(..cases.len());
            put_unsigned(out, case as u64);
            cases[case].ty.into_iter().for_each(|ty| value(random, types, ty, out));
        }
        Type::Enum(names) => put_unsigned(out, random.usize(..names.len()) as u64),
        Type::Option(some) => {
            let is_some = random.bool();
            out.push(is_some.into());
            if is_some {
                value(random, types, *some, out);
            }
        }
        Type::Result { ok, err } => {
            let side = random.usize(..2);
            out.push(u8::try_from(side).unwrap());
            [*ok, *err][side].into_iter().for_each(|ty| value(random, types, ty, out));
        }
        Type::Flags(names) => {
            let set: Vec<bool> = names.iter().map(|_| random.bool()).collect();
            put_flags(out, &set);
        }
    }
}

/// Arguments of a method.
fn arguments(random: &mut fastrand::Rng, service: &Service, method: usize) -> Vec<u8> {
    let signature = service.methods()[method].signature.as_ref().unwrap();
    let mut out = Vec::new();
    for param in &signature.params {
        value(random, service.types(), param.ty, &mut out);
    }
    out
}

/// Bytes that were damaged a little.
fn damaged(random: &mut fastrand::Rng, mut bytes: Vec<u8>) -> Vec<u8> {
    for _ in 0..random.usize(1..4) {
        let at = random.usize(..=bytes.len());
        match random.u32(0..4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.u8(..)),
            _ if at < bytes.len() && random.bool() => bytes[at] ^= 1 << random.u32(0..8),
            _ if at < bytes.len() => bytes[at] = random.u8(..),
            _ => bytes.push(random.u8(..)),
        }
    }
    bytes
}

/// What somebody who looks for more has said.
fn told(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// `make fuzz` runs it for millions of damaged values: with other types for each of WHARF_CODEC_SEEDS,
/// and WHARF_CODEC_ROUNDS times as many values of each.
#[tokio::test]
async fn made_up_types_and_values_come_back_alike_on_both_paths() {
    let (mut whole, mut broken, mut refused) = (0u64, 0u64, 0u64);
    let rounds = told("WHARF_CODEC_ROUNDS").unwrap_or(1);
    for seed in 0..told("WHARF_CODEC_SEEDS").unwrap_or(12) {
        let mut random = fastrand::Rng::with_seed(seed);
        let both = Both::load(echo(&mut random, 12)).await;
        assert!(both.codec.uses_codec() && !both.dynamic.uses_codec());
        let service = both.service().clone();
        for method in 0..service.methods().len() - 1 {
            let in_memory = service.methods()[method].name.starts_with('m');
            for _ in 0..20 * rounds {
                let sent = arguments(&mut random, &service, method);
                let reply = both.call(method, &sent).await.unwrap();
                // In memory, it is the very same value.
                assert!(!in_memory || reply == sent, "seed {seed}: {sent:?} {reply:?}");
                whole += 1;
            }
            for _ in 0..40 * rounds {
                let sent = arguments(&mut random, &service, method);
                let sent = damaged(&mut random, sent);
                let answer = both.call(method, &sent).await;
                let invalid = matches!(answer, Ok(_) | Err(CallError::InvalidArgument(_)));
                assert!(invalid, "seed {seed}: {answer:?}");
                broken += 1;
                refused += u64::from(answer.is_err());
            }
        }
        // Whatever was malformed has taken no memory: all of it is given back after each call.
        let pages = both.call(service.methods().len() - 1, &[]).await.unwrap();
        assert!(pages[0] <= 17, "seed {seed}: {} pages", pages[0]);
    }
    assert!(refused > broken / 4, "hardly anything was damaged: {refused} of {broken}");
    println!("{whole} values, and {broken} that were damaged, of which {refused} were refused");
}

#[tokio::test]
async fn a_codec_takes_some_hundred_bytes_a_method_beside_what_all_codecs_have() {
    // `zoo` has every kind of type there is.
    for wasm in [plugin("arith").unwrap(), plugin("textkit").unwrap(), guest("zoo").unwrap()] {
        let candidate = Candidate::read(wasm).await.unwrap();
        let methods: usize = candidate.services().iter().map(|s| s.methods().len()).sum();
        let size = candidate.codec_size();
        assert!(0 < size && size <= 1536 + 600 * methods, "{size} bytes for {methods} methods");
    }
}

#[tokio::test]
async fn what_compilers_make_is_spliced_and_answers_alike() {
    for wasm in [plugin("arith").unwrap(), plugin("textkit").unwrap(), guest("zoo").unwrap()] {
        let both = Both::load(wasm).await;
        assert!(both.codec.uses_codec());
        let mut random = fastrand::Rng::with_seed(7);
        let service = both.service().clone();
        for method in 0..service.methods().len() {
            for _ in 0..50 {
                let sent = arguments(&mut random, &service, method);
                both.call(method, &sent).await.unwrap();
                let sent = damaged(&mut random, sent);
                let answer = both.call(method, &sent).await;
                assert!(matches!(answer, Ok(_) | Err(CallError::InvalidArgument(_))), "{answer:?}");
            }
        }
    }
}

#[tokio::test]
async fn core_values_that_are_wider_than_their_types_mean_the_same_on_both_paths() {
    let both = Both::load(
        component(
            "package test:wide@1.0.0;
             interface wide {
                 enum e { a, b } record r { x: bool }
                 f1: func(x: u32) -> bool; f2: func(x: u32) -> r; f3: func(x: u32) -> e;
                 f4: func(x: u32) -> result; f5: func(x: u32) -> u8; f6: func(x: u32) -> s16;
                 f7: func(x: u32) -> char;
             }
             world plugin { export wide; }",
            &format!(
                "(module {})",
                (1..=7)
                    .map(|n| format!(
                        r#"(func (export "test:wide/wide@1.0.0#f{n}") (param i32) (result i32) (local.get 0))"#
                    ))
                    .collect::<String>()
            ),
        )
        .unwrap(),
    )
    .await;
    assert!(both.codec.uses_codec());
    for method in 0..7 {
        for value in [0u32, 1, 2, 255, 256, 257, 65535, 65536, 0xd800, 0x11_0000, u32::MAX] {
            let arguments = postcard::to_stdvec(&value).unwrap();
            both.call_alike(method, &arguments).await;
        }
    }
}

#[tokio::test]
async fn what_lifts_strings_as_utf_16_is_called_by_dynamic_values() {
    let wasm = wharf_tests::component_in_utf16(
        "package test:units@1.0.0; interface units { count: func(text: string) -> u32; }
         world plugin { export units; }",
        r#"(module (memory (export "memory") 1)
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
            (func (export "test:units/units@1.0.0#count") (param i32 i32) (result i32) (local.get 1)))"#,
    )
    .unwrap();
    let inspection = wharf_runtime::inspect(&wasm).unwrap();
    assert_eq!(inspection.without_codec(&wasm), [["count"]]);
    let both = Both::load(wasm).await;
    assert!(!both.codec.uses_codec());
    // One unit of sixteen bits, which are two bytes in UTF-8.
    let reply = both.call(0, &postcard::to_stdvec("é").unwrap()).await.unwrap();
    assert_eq!(reply, [1][..]);
}

#[tokio::test]
async fn a_million_calls_on_one_instance_take_no_more_memory_than_a_thousand() {
    let textkit = plugin("textkit").unwrap();
    let engine = Engine::new(None).unwrap();
    let settings = Settings {
        limits: wharf_runtime::Limits {
            instances: 1,
            memory: 4 * 1024 * 1024,
            ..wharf_runtime::Limits::default()
        },
        ..Settings::default()
    };
    // A guest that kept a byte a call would have run into its limit.
    let plugin = Plugin::load(&engine, "textkit", textkit, settings).await.unwrap();
    let service = plugin.services()[0].clone();
    let index = |name: &str| MethodIndex {
        service: 0,
        method: service.methods().iter().position(|method| method.name == name).unwrap(),
    };
    let echo = Bytes::from(postcard::to_stdvec(&vec![7u8; 40]).unwrap());
    let malformed = Bytes::from_static(&[40, 1]);
    let deadline = Instant::now() + Duration::from_secs(300);
    for n in 0..1_000_000 {
        let reply = plugin
            .clone()
            .call(index("echo"), echo.clone(), Instant::now(), deadline)
            .await
            .unwrap();
        assert_eq!(reply, echo);
        if n % 10 == 0 {
            let answer = plugin
                .clone()
                .call(index("echo"), malformed.clone(), Instant::now(), deadline)
                .await;
            assert!(matches!(answer, Err(CallError::InvalidArgument(_))), "{answer:?}");
        }
    }
}
