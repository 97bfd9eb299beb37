//! Compares the codec that is spliced into components with the path over dynamic values. Types and
//! values are generated. Both paths must return the same bytes and the same errors.

use std::cell::Cell;
use std::time::{Duration, Instant};

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use wharf_runtime::{
    Candidate, Engine, InvokeError, Limits, MethodIndex, Plugin, Settings, inspect,
};
use wharf_schema::Service;
use wharf_tests::{component, guest, plugin};

use crate::made_up::{ALL_FREE, Echo, Kind, arguments, damaged, echo, free, shape};

/// The same plugin on both paths.
struct Both {
    codec: Plugin,
    dynamic: Plugin,
}

/// With one instance, all calls see the same memory, one after the other.
fn one_instance() -> Settings {
    Settings { limits: Limits { instances: 1, ..Limits::default() }, ..Settings::default() }
}

impl Both {
    async fn load(wasm: Vec<u8>) -> Self {
        let engine = Engine::new(None).unwrap();
        let candidate = Candidate::read(wasm).await.unwrap();
        let dynamic = candidate.clone().without_codec();
        let codec = candidate.load(&engine, "codec", one_instance()).await.unwrap();
        let dynamic = dynamic.load(&engine, "dynamic", one_instance()).await.unwrap();
        Both { codec, dynamic }
    }

    /// The index of the service with methods. Another service may have only types.
    fn index(&self) -> usize {
        let services = self.codec.services();
        services.iter().position(|service| !service.methods().is_empty()).unwrap()
    }

    fn service(&self) -> &Service {
        &self.codec.services()[self.index()]
    }

    /// Calls a method on both. They must return the same result, or both an error with any text.
    async fn call_alike(&self, method: usize, arguments: &[u8]) {
        let index = MethodIndex { service: self.index(), method };
        let deadline = Instant::now() + Duration::from_secs(20);
        let call = |plugin: &Plugin| {
            plugin.clone().call(index, Bytes::copy_from_slice(arguments), Instant::now(), deadline)
        };
        let (codec, dynamic) = (call(&self.codec).await, call(&self.dynamic).await);
        assert_eq!(codec.as_ref().ok(), dynamic.as_ref().ok(), "{codec:?}, {dynamic:?}");
        let traps = |result: &Result<Bytes, InvokeError>| {
            matches!(result, Ok(_) | Err(InvokeError::Trapped { .. }))
        };
        assert!(traps(&codec) && traps(&dynamic), "{codec:?}, {dynamic:?}");
    }

    /// Calls a method on both. They must return the same result or the same error.
    async fn call(&self, method: usize, arguments: &[u8]) -> Result<Bytes, InvokeError> {
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

/// One path reads what the other has written, in the memory of one instance. So a mistake in the
/// layout cannot cancel itself out.
struct Crossed {
    written_by_codec: Plugin,
    read_by_codec: Plugin,
}

impl Crossed {
    async fn load(wasm: Vec<u8>) -> Self {
        let engine = Engine::new(None).unwrap();
        let candidate = Candidate::read(wasm).await.unwrap();
        let load = |kind: char| {
            let candidate = candidate.clone().with_codec_for(|name| name.starts_with(kind));
            candidate.load(&engine, "crossed", one_instance())
        };
        let (written_by_codec, read_by_codec) =
            (load('w').await.unwrap(), load('r').await.unwrap());
        Crossed { written_by_codec, read_by_codec }
    }

    async fn check(&self, write: usize, read: usize, sent: &[u8]) {
        for (by_codec, plugin) in
            [("written", &self.written_by_codec), ("read", &self.read_by_codec)]
        {
            let mut services = plugin.services().iter();
            let service = services.position(|service| !service.methods().is_empty()).unwrap();
            let method = &plugin.services()[service].methods()[read].name;
            let deadline = Instant::now() + Duration::from_secs(20);
            let call = |method, arguments| {
                let index = MethodIndex { service, method };
                plugin.clone().call(index, arguments, Instant::now(), deadline)
            };
            assert_eq!(call(write, Bytes::copy_from_slice(sent)).await.unwrap(), &[][..]);
            let read = call(read, Bytes::new()).await;
            let is_same = read.as_ref().is_ok_and(|read| read == sent);
            assert!(is_same, "{by_codec} by the codec, {method}: {sent:?} {read:?}");
        }
    }
}

/// The number in an environment variable that extends the test.
fn told<N: std::str::FromStr<Err: std::fmt::Debug>>(variable: &str) -> Option<N> {
    std::env::var(variable).ok().map(|number| number.parse().unwrap())
}

/// Runs a test on generated cases. They are the same each time, unless an environment variable asks
/// for more.
fn run<S: Strategy>(cases: u32, strategy: &S, test: impl Fn(S::Value)) {
    let more: Option<u32> = told("WHARF_CODEC_CASES");
    let config = Config {
        cases: more.unwrap_or(cases),
        failure_persistence: None,
        max_shrink_iters: 10_000,
        max_shrink_time: 30_000,
        ..Config::default()
    };
    let chance = more.map_or(0, |_| fastrand::u64(..));
    let seed: u64 = told("WHARF_CODEC_SEED").unwrap_or(chance);
    let mut whole_seed = [0; 32];
    whole_seed[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &whole_seed);
    let outcome = TestRunner::new_with_rng(config, random).run(strategy, |case| {
        test(case);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("with WHARF_CODEC_SEED={seed}: {error}");
    }
}

/// Encoded values of several types.
type Values = Vec<Vec<Vec<u8>>>;

/// Some types; for each type, values that are passed in memory and values that are passed flat; and
/// a random seed.
fn types_and_values() -> impl Strategy<Value = (Echo, Values, Values, u64)> {
    vec(shape(), 1..=12).prop_flat_map(|shapes| {
        let echo = echo(&shapes);
        let inspection = inspect(&echo.wasm).unwrap();
        // Otherwise dynamic values would be compared with dynamic values.
        assert!(inspection.without_codec(&echo.wasm).iter().all(Vec::is_empty), "{echo:?}");
        let services = inspection.services;
        let service = services.iter().find(|service| !service.methods().is_empty()).unwrap();
        let values = |kind: Kind| -> Vec<_> {
            let places = (0..shapes.len()).map(|ty| kind.place(shapes.len(), ty));
            places.map(|place| vec(arguments(service, place), 20)).collect()
        };
        (Just(echo), values(Kind::InMemory), values(Kind::Flat), any::<u64>())
    })
}

/// `make fuzz` runs this for millions of damaged values. `WHARF_CODEC_CASES` is the number of cases
/// with new types and values. `WHARF_CODEC_ROUNDS` is the number of rounds per case; each round
/// damages each value twice.
#[test]
fn made_up_types_and_values_come_back_alike_on_both_paths() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (whole, broken, refused) = (Cell::new(0u64), Cell::new(0u64), Cell::new(0u64));
    let rounds = told("WHARF_CODEC_ROUNDS").unwrap_or(1);
    let check = async |echo: Echo, in_memory: Values, flat: Values, seed| {
        let mut random = fastrand::Rng::with_seed(seed);
        let both = Both::load(echo.wasm.clone()).await;
        assert!(both.codec.uses_codec() && !both.dynamic.uses_codec());
        let crossed = Crossed::load(echo.wasm).await;
        let types = in_memory.len();
        for ty in 0..types {
            for sent in &in_memory[ty] {
                let reply = both.call(Kind::InMemory.place(types, ty), sent).await.unwrap();
                assert_eq!(reply, sent);
                let (write, read) = (Kind::Write.place(types, ty), Kind::Read.place(types, ty));
                crossed.check(write, read, sent).await;
            }
            for sent in &flat[ty] {
                both.call(Kind::Flat.place(types, ty), sent).await.unwrap();
            }
            whole.update(|count| count + (in_memory[ty].len() + flat[ty].len()) as u64);
            for (kind, values) in [(Kind::InMemory, &in_memory), (Kind::Flat, &flat)] {
                for sent in (0..2 * rounds).flat_map(|_| &values[ty]) {
                    let sent = damaged(&mut random, sent.clone());
                    let answer = both.call(kind.place(types, ty), &sent).await;
                    let invalid = matches!(answer, Ok(_) | Err(InvokeError::InvalidArgument(_)));
                    assert!(invalid, "{answer:?}");
                    broken.update(|count| count + 1);
                    if answer.is_err() {
                        refused.update(|count| count + 1);
                        // Refused arguments must not allocate memory in the guest.
                        let free = both.call(free(types), &[]).await.unwrap();
                        assert_eq!(free, postcard::to_stdvec(&ALL_FREE).unwrap(), "{sent:?}");
                    }
                }
            }
        }
    };
    run(24, &types_and_values(), |(echo, in_memory, flat, seed)| {
        runtime.block_on(check(echo, in_memory, flat, seed));
    });
    let (whole, broken, refused) = (whole.get(), broken.get(), refused.get());
    assert!(refused > broken / 4, "hardly anything was damaged: {refused} of {broken}");
    println!("{whole} values, and {broken} that were damaged, of which {refused} were refused");
}

#[tokio::test]
async fn a_codec_takes_some_hundred_bytes_a_method_beside_what_all_codecs_have() {
    // `zoo` uses every kind of type.
    for wasm in [plugin("arith").unwrap(), plugin("textkit").unwrap(), guest("zoo").unwrap()] {
        let candidate = Candidate::read(wasm).await.unwrap();
        let methods: usize = candidate.services().iter().map(|s| s.methods().len()).sum();
        let size = candidate.codec_size();
        assert!(0 < size && size <= 1536 + 600 * methods, "{size} bytes for {methods} methods");
    }
}

#[test]
fn what_compilers_make_is_spliced_and_answers_alike() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for wasm in [plugin("arith").unwrap(), plugin("textkit").unwrap(), guest("zoo").unwrap()] {
        let both = runtime.block_on(Both::load(wasm));
        assert!(both.codec.uses_codec());
        for method in 0..both.service().methods().len() {
            let values = (arguments(both.service(), method), any::<u64>());
            run(50, &values, |(sent, seed)| {
                runtime.block_on(async {
                    both.call(method, &sent).await.unwrap();
                    let sent = damaged(&mut fastrand::Rng::with_seed(seed), sent);
                    let answer = both.call(method, &sent).await;
                    let invalid = matches!(answer, Ok(_) | Err(InvokeError::InvalidArgument(_)));
                    assert!(invalid, "{answer:?}");
                });
            });
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
    let reason = "the outermost component does not lift it itself, or not in UTF-8";
    assert_eq!(inspection.without_codec(&wasm), [[("count".to_owned(), reason)]]);
    let both = Both::load(wasm).await;
    assert!(!both.codec.uses_codec());
    // The text is one unit of sixteen bits in UTF-16, and two bytes in UTF-8.
    let reply = both.call(0, &postcard::to_stdvec("é").unwrap()).await.unwrap();
    assert_eq!(reply, [1][..]);
}

#[tokio::test]
async fn a_million_calls_on_one_instance_take_no_more_memory_than_a_thousand() {
    let textkit = plugin("textkit").unwrap();
    let engine = Engine::new(None).unwrap();
    let settings = Settings {
        limits: Limits { instances: 1, memory: 4 * 1024 * 1024, ..Limits::default() },
        ..Settings::default()
    };
    // If the guest leaked one byte per call, it would reach its memory limit.
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
            assert!(matches!(answer, Err(InvokeError::InvalidArgument(_))), "{answer:?}");
        }
    }
}
