//! Generated types and values. They are proptest strategies, so proptest shrinks a failing case.

use std::fmt::{self, Write};

use proptest::collection::vec;
use proptest::num::{f32, f64};
use proptest::prelude::*;
use proptest::strategy::Union;
use wharf_schema::encoding::{put_bytes, put_char, put_flags, put_signed, put_unsigned};
use wharf_schema::{Service, Type, TypeId, Types};
use wharf_tests::component;

/// A type.
#[derive(Clone, Debug)]
pub(crate) enum Shape {
    Scalar(&'static str),
    List(Box<Shape>),
    FixedList(Box<Shape>, u32),
    Option(Box<Shape>),
    Result(Option<Box<Shape>>, Option<Box<Shape>>),
    Tuple(Vec<Shape>),
    Record(Vec<Shape>),
    Variant(Vec<Option<Shape>>),
    Flags(usize),
    Enum(usize),
}

/// Any type, a few levels deep.
pub(crate) fn shape() -> impl Strategy<Value = Shape> {
    let scalars = prop::sample::select(&[
        "bool", "u8", "u16", "u32", "u64", "s8", "s16", "s32", "s64", "f32", "f64", "char",
        "string", "list<u8>",
    ]);
    // Numbers of flags that take one, two or four bytes. 32 is the most that is allowed.
    let flags = prop::sample::select(&[1, 7, 8, 9, 16, 17, 31, 32]);
    let names = prop::sample::select(&[1, 2, 255, 256, 257, 300]);
    let leaf = prop_oneof![
        6 => scalars.prop_map(Shape::Scalar),
        1 => flags.prop_map(Shape::Flags),
        1 => names.prop_map(Shape::Enum),
    ];
    leaf.prop_recursive(3, 48, 4, |inner| {
        let boxed = || inner.clone().prop_map(Box::new);
        let maybe = || prop::option::of(boxed());
        prop_oneof![
            2 => boxed().prop_map(Shape::List),
            1 => (boxed(), 1u32..4).prop_map(|(element, len)| Shape::FixedList(element, len)),
            1 => boxed().prop_map(Shape::Option),
            2 => (maybe(), maybe()).prop_map(|(ok, err)| Shape::Result(ok, err)),
            1 => vec(inner.clone(), 1..4).prop_map(Shape::Tuple),
            2 => vec(inner.clone(), 1..5).prop_map(Shape::Record),
            1 => vec(prop::option::of(inner), 1..5).prop_map(Shape::Variant),
        ]
    })
}

impl Shape {
    /// The type in WIT. Types that need a name are added to `named`.
    fn text(&self, named: &mut Vec<String>) -> String {
        let numbered = |letter: char, count: usize| {
            let names: Vec<String> = (0..count).map(|n| format!("{letter}{n}x")).collect();
            names.join(", ")
        };
        match self {
            Shape::Scalar(name) => (*name).to_owned(),
            Shape::List(element) => format!("list<{}>", element.text(named)),
            Shape::FixedList(element, len) => format!("list<{}, {len}>", element.text(named)),
            Shape::Option(some) => format!("option<{}>", some.text(named)),
            Shape::Result(None, None) => "result".to_owned(),
            Shape::Result(Some(ok), None) => format!("result<{}>", ok.text(named)),
            Shape::Result(ok, Some(err)) => {
                let ok = ok.as_ref().map_or_else(|| "_".to_owned(), |ok| ok.text(named));
                format!("result<{ok}, {}>", err.text(named))
            }
            Shape::Tuple(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| part.text(named)).collect();
                format!("tuple<{}>", parts.join(", "))
            }
            Shape::Record(fields) => {
                let mut members = String::new();
                for (n, field) in fields.iter().enumerate() {
                    write!(members, "f{n}x: {}, ", field.text(named)).unwrap();
                }
                name(named, "record", &members)
            }
            Shape::Variant(cases) => {
                let mut members = String::new();
                for (n, case) in cases.iter().enumerate() {
                    let payload = case.as_ref().map(|payload| format!("({})", payload.text(named)));
                    write!(members, "c{n}x{}, ", payload.unwrap_or_default()).unwrap();
                }
                name(named, "variant", &members)
            }
            Shape::Flags(count) => name(named, "flags", &numbered('n', *count)),
            Shape::Enum(count) => name(named, "enum", &numbered('n', *count)),
        }
    }
}

/// Declares a type with a name, as WIT requires for some types. Returns the name.
fn name(named: &mut Vec<String>, kind: &str, members: &str) -> String {
    let name = format!("t{}x", named.len());
    named.push(format!("{kind} {name} {{ {members} }}"));
    name
}

/// How a method returns its argument.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The argument is passed in memory, and returned at the same address.
    InMemory,
    /// The argument is passed flat, and returned as the list of all core values.
    Flat,
    /// The argument is left in memory,
    Write,
    /// and another call returns it from there.
    Read,
}

impl Kind {
    const ALL: [Kind; 4] = [Kind::InMemory, Kind::Flat, Kind::Write, Kind::Read];

    /// The name of its method for the type with this number.
    fn method(self, ty: usize) -> String {
        let letter = match self {
            Kind::InMemory => 'm',
            Kind::Flat => 'f',
            Kind::Write => 'w',
            Kind::Read => 'r',
        };
        format!("{letter}{ty}x")
    }

    /// The position of that method, if there are `types` types.
    pub(crate) fn place(self, types: usize, ty: usize) -> usize {
        self as usize * types + ty
    }
}

/// The position of the method that returns the address where free memory begins.
pub(crate) fn free(types: usize) -> usize {
    Kind::ALL.len() * types
}

/// The address where free memory begins while nothing is allocated.
pub(crate) const ALL_FREE: u32 = 1024;

/// A component. Its `Debug` output is its WIT.
#[derive(Clone)]
pub(crate) struct Echo {
    pub(crate) wasm: Vec<u8>,
    wit: String,
}

impl fmt::Debug for Echo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.wit)
    }
}

/// A service that returns its arguments, with methods for each type. First come all methods of one
/// kind, then those of the next, in the order of [`Kind`].
pub(crate) fn echo(shapes: &[Shape]) -> Echo {
    let (mut named, mut functions, mut wat) = (Vec::new(), String::new(), String::new());
    let export = |name: &str| format!("(export \"test:echo/echo@1.0.0#{name}\")");
    // More parameters than are passed flat, so that all are passed in memory.
    let padding = vec!["u8"; 17].join(", ");
    let texts: Vec<String> = shapes.iter().map(|shape| shape.text(&mut named)).collect();
    for kind in Kind::ALL {
        for (n, ty) in texts.iter().enumerate() {
            let padded = format!("tuple<{ty}, tuple<{padding}>>");
            let name = kind.method(n);
            let (signature, code) = match kind {
                Kind::InMemory => {
                    (format!("(x: {padded}) -> {padded}"), "(param i32) (result i32) (local.get 0)")
                }
                Kind::Write => {
                    (format!("(x: {padded})"), "(param i32) (global.set $kept (local.get 0))")
                }
                Kind::Read => (format!("() -> {padded}"), "(result i32) (global.get $kept)"),
                Kind::Flat => {
                    writeln!(functions, "{name}: func(x: {ty}) -> list<u64>;").unwrap();
                    continue;
                }
            };
            writeln!(functions, "{name}: func{signature};").unwrap();
            writeln!(wat, "(func {} {code})", export(&name)).unwrap();
        }
    }
    let wit = |functions: &str| {
        format!(
            "package test:echo@1.0.0; interface echo {{ {} {functions} free: func() -> u32; }}
             world plugin {{ export echo; }}",
            named.join(" ")
        )
    };
    // The encoder's own library computes the core types of flat parameters.
    let mut resolve = wit_parser::Resolve::default();
    let package = resolve.push_source("echo.wit", &wit(&functions)).unwrap();
    let interface = &resolve.interfaces[resolve.packages[package].interfaces["echo"]];
    for n in 0..shapes.len() {
        let name = Kind::Flat.method(n);
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
    for kind in Kind::ALL.into_iter().filter(|kind| *kind != Kind::Write) {
        for n in 0..shapes.len() {
            writeln!(
                wat,
                "(func (export \"cabi_post_test:echo/echo@1.0.0#{}\") (param i32)
                   (global.set $free (i32.const {ALL_FREE})))",
                kind.method(n)
            )
            .unwrap();
        }
    }
    let wit = wit(&functions);
    let wasm = component(
        &wit,
        &format!(
            r#"(module
                (memory (export "memory") 1)
                (global $free (mut i32) (i32.const {ALL_FREE}))
                (global $kept (mut i32) (i32.const 0))
                (func {free} (result i32) (global.get $free))
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
            free = export("free"),
        ),
    )
    .unwrap();
    Echo { wasm, wit }
}

/// Encoded arguments of a method.
pub(crate) fn arguments(service: &Service, method: usize) -> BoxedStrategy<Vec<u8>> {
    let signature = service.methods()[method].signature.as_ref().unwrap();
    let types = service.types();
    row(signature.params.iter().map(|param| value(types, param.ty)).collect())
}

/// Encoded values, one after the other.
fn row(parts: Vec<BoxedStrategy<Vec<u8>>>) -> BoxedStrategy<Vec<u8>> {
    parts.prop_map(|parts| parts.concat()).boxed()
}

/// An encoded value of a type.
fn value(types: &Types, ty: TypeId) -> BoxedStrategy<Vec<u8>> {
    // Numbers of at most `bits` bits. Each length in bits is equally likely.
    let numbers = |bits: u32| {
        (0..=bits, any::<u64>())
            .prop_map(|(bits, number)| number.checked_shr(64 - bits).unwrap_or(0))
    };
    let unsigned = |bits: u32| {
        numbers(bits).prop_map(|number| encoded(|out| put_unsigned(out, number))).boxed()
    };
    let signed = |bits: u32| {
        let either = (numbers(bits - 1), any::<bool>()).prop_map(|(number, negative)| {
            let number = number.cast_signed();
            if negative { !number } else { number }
        });
        either.prop_map(|number| encoded(|out| put_signed(out, number))).boxed()
    };
    let of = |ty: Option<TypeId>| ty.map_or_else(|| row(Vec::new()), |ty| value(types, ty));
    match &types[ty] {
        Type::Bool => any::<bool>().prop_map(|is| vec![is.into()]).boxed(),
        Type::U8 | Type::S8 => any::<u8>().prop_map(|byte| vec![byte]).boxed(),
        Type::U16 => unsigned(16),
        Type::U32 => unsigned(32),
        Type::U64 => unsigned(64),
        Type::S16 => signed(16),
        Type::S32 => signed(32),
        Type::S64 => signed(64),
        // No NaN, because both paths may change the bits of a NaN.
        Type::F32 => {
            let kinds = f32::NORMAL | f32::SUBNORMAL | f32::ZERO | f32::INFINITE;
            let numbers = kinds | f32::POSITIVE | f32::NEGATIVE;
            numbers.prop_map(|number| number.to_le_bytes().to_vec()).boxed()
        }
        Type::F64 => {
            let kinds = f64::NORMAL | f64::SUBNORMAL | f64::ZERO | f64::INFINITE;
            let numbers = kinds | f64::POSITIVE | f64::NEGATIVE;
            numbers.prop_map(|number| number.to_le_bytes().to_vec()).boxed()
        }
        Type::Char => any::<char>().prop_map(|char| encoded(|out| put_char(out, char))).boxed(),
        Type::String => {
            let texts = prop_oneof![
                vec(any::<char>(), 0..20).prop_map(String::from_iter),
                (0..80usize).prop_map(|count| "ascii ".repeat(count)),
            ];
            texts.prop_map(|text| encoded(|out| put_bytes(out, text.as_bytes()))).boxed()
        }
        Type::Bytes => {
            let bytes = vec(any::<u8>(), 0..50);
            bytes.prop_map(|bytes| encoded(|out| put_bytes(out, &bytes))).boxed()
        }
        Type::List(element) => {
            let elements = vec(value(types, *element), 0..5);
            elements.prop_map(|elements| numbered(elements.len(), &elements.concat())).boxed()
        }
        Type::FixedList(element, len) => row((0..*len).map(|_| value(types, *element)).collect()),
        Type::Tuple(_) | Type::Record(_) => {
            row(types[ty].parts().map(|part| value(types, part)).collect())
        }
        Type::Variant(cases) => Union::new(cases.iter().enumerate().map(|(case, payload)| {
            of(payload.ty).prop_map(move |payload| numbered(case, &payload)).boxed()
        }))
        .boxed(),
        Type::Enum(names) => (0..names.len()).prop_map(|case| numbered(case, &[])).boxed(),
        Type::Option(some) => Union::new([None, Some(*some)].map(|some| {
            let tag = usize::from(some.is_some());
            of(some).prop_map(move |some| numbered(tag, &some)).boxed()
        }))
        .boxed(),
        Type::Result { ok, err } => Union::new([(0, *ok), (1, *err)].map(|(side, payload)| {
            of(payload).prop_map(move |payload| numbered(side, &payload)).boxed()
        }))
        .boxed(),
        Type::Flags(names) => vec(any::<bool>(), names.len())
            .prop_map(|set| encoded(|out| put_flags(out, &set)))
            .boxed(),
    }
}

fn encoded(put: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out);
    out
}

/// A length or the number of a case, followed by `rest`.
fn numbered(number: usize, rest: &[u8]) -> Vec<u8> {
    let mut out = encoded(|out| put_unsigned(out, number as u64));
    out.extend(rest);
    out
}

/// Damages some of the bytes.
pub(crate) fn damaged(random: &mut fastrand::Rng, mut bytes: Vec<u8>) -> Vec<u8> {
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
