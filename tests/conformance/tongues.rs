//! The same service in several languages: the codec works with the components of all their tools.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wharf_runtime::{CacheDirectory, Candidate, Engine, Limits, MethodIndex, Plugin, Settings};
use wharf_tests::Tongue;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Person {
    name: String,
    age: u8,
    nicknames: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Shape {
    Circle(f64),
    Square(u32),
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
enum Refusal {
    ByZero,
    TooLarge,
}

fn person(name: &str, age: u8, nicknames: &[&str]) -> Person {
    let nicknames = nicknames.iter().map(|&nickname| nickname.to_owned()).collect();
    Person { name: name.to_owned(), age, nicknames }
}

/// The same service, called with the codec and with dynamic values.
struct Both([Plugin; 2]);

impl Both {
    async fn load(wasm: Vec<u8>) -> Self {
        // With a cache, the component is compiled only once: interpreters have megabytes of code.
        let cache = tempfile::tempdir().unwrap();
        let engine =
            Engine::new(Some(CacheDirectory { path: cache.path(), check: |_| Ok(()) })).unwrap();
        let candidate = Candidate::read(wasm).await.unwrap();
        let dynamic = candidate.clone().without_codec();
        let limits = Limits { memory: 256 << 20, ..Limits::default() };
        let settings = || Settings { limits: limits.clone(), ..Settings::default() };
        let codec = candidate.load(&engine, "codec", settings()).await.unwrap();
        let dynamic = dynamic.load(&engine, "dynamic", settings()).await.unwrap();
        // Each method, and not only some.
        assert_eq!(codec.methods_without_codec(), Vec::<String>::new());
        assert!(!dynamic.uses_codec());
        Both([codec, dynamic])
    }

    /// Calls a method on both. They must return the same bytes.
    async fn call<R: DeserializeOwned>(&self, method: &str, arguments: &impl Serialize) -> R {
        let arguments = postcard::to_stdvec(arguments).unwrap();
        let mut replies = Vec::new();
        for plugin in &self.0 {
            let services = plugin.services();
            let service = services.iter().position(|s| s.name().interface == "tongue").unwrap();
            let methods = services[service].methods();
            let method = methods.iter().position(|m| m.name == method).unwrap();
            let index = MethodIndex { service, method };
            let (arguments, now) = (arguments.clone().into(), Instant::now());
            let call = plugin.clone().call(index, arguments, now, now + Duration::from_secs(60));
            replies.push(call.await.unwrap());
        }
        assert_eq!(replies[0], replies[1], "{method}");
        postcard::from_bytes(&replies[0]).unwrap()
    }
}

async fn speaks(tongue: Tongue) {
    let made = tokio::task::spawn_blocking(move || tongue.component()).await.unwrap();
    let Some(wasm) = made.unwrap() else { return };
    let both = Both::load(wasm).await;

    let ada = person("Ada", 36, &["Countess", "Lady ✨"]);
    let nobody = person("", 255, &[]);
    let greeting: String = both.call("greet", &ada).await;
    assert_eq!(greeting, "hello, Ada (36), also known as Countess, Lady ✨");
    let greeting: String = both.call("greet", &nobody).await;
    assert_eq!(greeting, "hello,  (255), also known as ");

    for len in [0, 1, 70_000] {
        let payload: Vec<u8> = (0..len).map(|at: u32| at.to_le_bytes()[0]).collect();
        assert_eq!(both.call::<Vec<u8>>("echo", &payload).await, payload);
    }

    for (shape, scaled) in [
        (Shape::Circle(1.5), Shape::Circle(3.75)),
        (Shape::Square(5), Shape::Square(12)),
        (Shape::Nothing, Shape::Nothing),
    ] {
        assert_eq!(both.call::<Shape>("scale", &(shape, 2.5f32)).await, scaled);
    }

    for ((a, b), quotient) in [
        ((-7, 2), Ok(-3)),
        ((1, 0), Err(Refusal::ByZero)),
        ((i64::MIN, -1), Err(Refusal::TooLarge)),
        ((i64::MAX, 1), Ok(i64::MAX)),
    ] {
        let divided: Result<i64, Refusal> = both.call("divide", &(a, b)).await;
        assert_eq!(divided, quotient);
    }

    let people = vec![ada.clone(), nobody.clone(), person("Ö", 0, &["x"])];
    let reversed: Vec<Person> = both.call("reverse", &(&people, Option::<&str>::None)).await;
    assert!(reversed.iter().eq(people.iter().rev()));
    let noted: Vec<Person> = both.call("reverse", &(&people, Some("noted"))).await;
    assert_eq!(noted[1], person("", 255, &["noted"]));
    assert_eq!(noted[2], person("Ada", 36, &["Countess", "Lady ✨", "noted"]));
    let none: Vec<Person> = both.call("reverse", &(&people[..0], Some("noted"))).await;
    assert_eq!(none, []);

    // Three flags take one byte.
    assert_eq!(both.call::<u8>("missing", &0b010u8).await, 0b101);
    assert_eq!(both.call::<(char, char)>("swap", &('a', '🚢')).await, ('🚢', 'a'));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_wit_bindgens_c_speaks_through_its_codec() {
    speaks(Tongue::C).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_componentize_py_speaks_through_its_codec() {
    speaks(Tongue::Python).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_component_of_componentize_js_speaks_through_its_codec() {
    speaks(Tongue::JavaScript).await;
}
