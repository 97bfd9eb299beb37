use wit_parser::Resolve;

use super::*;
use crate::service_from_wit;

fn service(version: &str, body: &str) -> Service {
    let source = format!("package t:t@{version}; interface api {{ {body} }}");
    let mut resolve = Resolve::default();
    resolve.push_str("t.wit", &source).unwrap();
    let (_, interface) = resolve.interfaces.iter().next().unwrap();
    let name = format!("t:t/api@{version}");
    service_from_wit(&resolve, interface, &name, source.clone()).unwrap()
}

/// What a change of one version is found to be.
fn change(before: &str, after: &str) -> Vec<(String, Broken)> {
    let (before, after) = (service("1.0.0", before), service("1.0.0", after));
    let found = differences([&before], [&after]);
    found.into_iter().map(|found| (found.to_string(), found.broken)).collect()
}

#[test]
fn each_change_of_a_signature_is_told_with_whom_it_breaks() {
    let args = |fields: &str| format!("record args {{ {fields} }} f: func(args: args) -> s64;");
    let answer = |fields: &str| format!("record answer {{ {fields} }} f: func() -> answer;");
    let way = |cases: &str| format!("enum way {{ {cases} }} f: func(way: way);");
    let back = |cases: &str| format!("enum way {{ {cases} }} f: func() -> way;");
    for (before, after, what, broken) in [
        (
            args("a: s64"),
            args("a: s64, b: option<s64>"),
            "args.b is new, and optional",
            Broken::Typed,
        ),
        (
            args("a: s64"),
            args("a: s64, b: s64"),
            "args.b is new, and must be given",
            Broken::Everybody,
        ),
        (args("a: s64, b: s64"), args("a: s64"), "args.b is gone", Broken::Everybody),
        (
            args("a: s64, b: s64"),
            args("b: s64, a: s64"),
            "the fields of args are in another order",
            Broken::Typed,
        ),
        (args("a: s32"), args("a: s64"), "args.a is s64, and was s32", Broken::Typed),
        (args("a: s64"), args("a: s32"), "args.a is s32, and was s64", Broken::Everybody),
        (args("a: u8"), args("a: option<u8>"), "args.a is optional now", Broken::Typed),
        (args("a: option<u8>"), args("a: u8"), "args.a is no longer optional", Broken::Everybody),
        (
            args("a: list<u16>"),
            args("a: list<string>"),
            "args.a[] is string, and was u16",
            Broken::Everybody,
        ),
        (answer("a: s64"), answer("a: s64, b: s64"), "the result.b is new", Broken::Typed),
        (answer("a: s64, b: s64"), answer("a: s64"), "the result.b is gone", Broken::Everybody),
        (args("a: u32"), args("a: s64"), "args.a is s64, and was u32", Broken::Everybody),
        (args("a: char"), args("a: string"), "args.a is string, and was char", Broken::Everybody),
        (args("a: f32"), args("a: f64"), "args.a is f64, and was f32", Broken::Typed),
        (
            args("a: option<u8>"),
            args("a: option<option<u8>>"),
            "args.a is another option",
            Broken::Everybody,
        ),
        (
            answer("a: option<u8>"),
            answer("a: u8"),
            "the result.a is no longer optional",
            Broken::Typed,
        ),
        (
            "f: func() -> option<result<u8>>;".into(),
            "f: func() -> result<u8>;".into(),
            "the result is no longer optional",
            Broken::Everybody,
        ),
        (
            "f: func(a: u8, b: u8);".into(),
            "f: func(a: u8, b: u8, c: option<u8>);".into(),
            "parameter c is new, and optional",
            Broken::Typed,
        ),
        (
            "f: func(a: u8, b: u8);".into(),
            "f: func(a: u8, c: option<u8>, b: u8);".into(),
            "parameter c is new, before others",
            Broken::Everybody,
        ),
        (
            "f: func();".into(),
            "f: func(a: option<u8>);".into(),
            "parameter a is new, and optional; what was",
            Broken::Everybody,
        ),
        (
            "variant v { none, x(u8) } f: func() -> v;".into(),
            "variant v { none(u8), x(u8) } f: func() -> v;".into(),
            "the result.none: the case carries something now",
            Broken::Everybody,
        ),
        (
            "record e { k: string, v: u8 } f: func(m: list<e>);".into(),
            "record e { v: u8, k: string } f: func(m: list<e>);".into(),
            "m is no longer what Go's maps fill",
            Broken::Everybody,
        ),
        (answer("a: s32"), answer("a: s64"), "the result.a is s64, and was s32", Broken::Everybody),
        (answer("a: s32"), answer("a: s16"), "the result.a is s16, and was s32", Broken::Typed),
        (
            answer("a: u8"),
            answer("a: option<u8>"),
            "the result.a is optional now",
            Broken::Everybody,
        ),
        (way("up, down"), way("up, down, left"), "way: the case left is new", Broken::Typed),
        (
            back("up, down"),
            back("up, down, left"),
            "the result: the case left is new",
            Broken::Everybody,
        ),
        (way("up, down"), way("up"), "way: the case down is gone", Broken::Everybody),
        (way("up, down"), way("down, up"), "way: its cases have other numbers", Broken::Everybody),
        (
            "f: func(a: u8);".into(),
            "f: func(b: u8);".into(),
            "parameter a is now called b",
            Broken::Named,
        ),
        (
            "f: func(a: u8);".into(),
            "f: func(a: u8, b: option<u8>);".into(),
            "parameter b is new, and optional; what was",
            Broken::Everybody,
        ),
        (
            "f: func(a: u8);".into(),
            "f: func(a: u8, b: u8);".into(),
            "parameter b is new, and must be given",
            Broken::Everybody,
        ),
        (
            "f: func(a: u8, b: u8);".into(),
            "f: func(a: u8);".into(),
            "parameter b is gone",
            Broken::Everybody,
        ),
        (
            "f: func(a: u8, b: u8);".into(),
            "f: func(b: u8, a: u8);".into(),
            "its parameters are in another order",
            Broken::Everybody,
        ),
        ("f: func();".into(), "f: func() -> u8;".into(), "it has a result now", Broken::Everybody),
        (
            "f: func() -> u8;".into(),
            "f: func();".into(),
            "it has no result any more",
            Broken::Everybody,
        ),
        (
            "f: func() -> result<u8, string>;".into(),
            "f: func() -> result<u8, u8>;".into(),
            "the result.err is u8, and was string",
            Broken::Everybody,
        ),
        ("f: func();".into(), "g: func();".into(), "the method is gone", Broken::Everybody),
        (
            "f: func();".into(),
            "f: func(s: list<future<u8>>);".into(),
            "it can no longer be called: parameter s",
            Broken::Everybody,
        ),
    ] {
        let found = change(&before, &after);
        let (told, whom) = &found[0];
        assert!(told.starts_with(&format!("api.f: {what}")), "{before} -> {after}: {found:?}");
        assert_eq!(*whom, broken, "{before} -> {after}: {found:?}");
    }
}

#[test]
fn what_only_adds_or_documents_breaks_nobody() {
    assert_eq!(change("f: func();", "/// Says more.\nf: func();"), []);
    let found = change("f: func();", "f: func(); g: func();");
    assert_eq!(found, [("api.g: the method is new".to_owned(), Broken::Nobody)]);
    let (one, two) = (service("1.0.0", "f: func();"), service("2.0.0", "f: func();"));
    let found = differences([&one], [&one, &two]);
    assert_eq!(found[0].to_string(), "t:t/api@2.0.0: the service is new");
    assert_eq!(found[0].broken, Broken::Nobody);
}

#[test]
fn a_service_that_a_short_name_now_means_breaks_who_gives_no_version() {
    let (one, two) = (service("1.0.0", "f: func();"), service("2.0.0", "f: func() -> u8;"));
    let found = differences([&one], [&one, &two]);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].broken, Broken::Short);
    assert!(found[0].what.contains("gets it instead of 1.0.0"), "{found:?}");
    // An older one beside it takes no calls.
    let found = differences([&two], [&one, &two]);
    assert_eq!((found.len(), found[0].broken), (1, Broken::Nobody));
}

#[test]
fn a_version_that_is_gone_breaks_who_asks_for_it_and_is_compared_with_the_next() {
    let (one, two) = (service("1.0.0", "f: func(); g: func();"), service("1.1.0", "f: func();"));
    let found: Vec<_> =
        differences([&one], [&two]).into_iter().map(|f| (f.to_string(), f.broken)).collect();
    assert_eq!(found[0], ("t:t/api@1.0.0: version 1.1.0 takes its place".into(), Broken::Pinned));
    assert_eq!(found[1], ("api.g: the method is gone".into(), Broken::Everybody));
    assert_eq!(found.len(), 2);
    let found = differences([&one], []);
    assert_eq!((&found[0].what[..], found[0].broken), ("the service is gone", Broken::Everybody));
}

#[test]
fn what_breaks_is_told_however_much_is_new_before_it() {
    let new: String = (0..2 * MAX_ALL).map(|n| format!("new{n}: func(); ")).collect();
    let found = change("last: func(a: u8);", &format!("{new} last: func(a: string);"));
    assert_eq!(found.len(), MAX_ALL);
    assert!(found.iter().any(|(_, broken)| *broken == Broken::Everybody), "{:?}", found[0]);
    let many =
        |ty: &str| (0..2 * MAX_ALL).map(|n| format!("m{n}: func(a: {ty}); ")).collect::<String>();
    assert_eq!(change(&many("u8"), &many("string")).len(), MAX_ALL);
}

#[test]
fn differences_are_bounded_and_types_that_spell_out_exponentially_are_compared_at_once() {
    let record = |ty: &str| {
        let fields: Vec<String> = (0..100).map(|n| format!("x{n}: {ty}")).collect();
        format!("record args {{ {} }} f: func(args: args);", fields.join(", "))
    };
    let found = change(&record("u8"), &record("u16"));
    assert_eq!(found.len(), MAX_DIFFERENCES);
    assert!(found[MAX_DIFFERENCES - 1].0.ends_with(", and more"));
    let nested = |innermost: &str| {
        let types = (1..40).map(|n| format!("type t{n} = tuple<t{0}, t{0}>;", n - 1));
        let types: String = types.collect();
        format!("type t0 = {innermost}; {types} f: func(a: t39);")
    };
    // Both parts of the innermost tuple, at one place.
    assert_eq!(change(&nested("u8"), &nested("u16")).len(), 2);
}
