//! The identity of a method's signature.

use crate::{Type, TypeId, Types};

/// A 128-bit hash of a method's name and structural types.
///
/// It includes the names of fields and cases, because JSON callers write them. It excludes doc
/// comments and the names of types and parameters, because no encoding depends on them. It is the
/// first half of a BLAKE3 hash over an unambiguous description, which
/// `sdk/schema/src/fingerprint.rs` defines. postcard-rpc's keys are the model for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint(pub [u8; 16]);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl std::str::FromStr for Fingerprint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ERROR: &str = "a fingerprint is 32 hexadecimal digits";
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ERROR);
        }
        u128::from_str_radix(text, 16).map(|n| Fingerprint(n.to_be_bytes())).map_err(|_| ERROR)
    }
}

/// The digests of all types of an arena. Each is computed from earlier digests, so the work is
/// linear. Writing the types out could take exponential work.
pub(crate) struct Digests(Vec<[u8; 32]>);

impl Digests {
    pub(crate) fn new(types: &Types) -> Self {
        let mut digests = Digests(Vec::new());
        for ty in types.iter() {
            let digest = digests.of_type(ty);
            digests.0.push(digest);
        }
        digests
    }

    /// The fingerprint of a method.
    pub(crate) fn method(
        &self,
        name: &str,
        params: impl ExactSizeIterator<Item = TypeId>,
        result: Option<TypeId>,
    ) -> Fingerprint {
        let mut hash = Hash::new("wharf method 1");
        hash.text(name);
        hash.number(params.len());
        for ty in params {
            hash.digest(self.of(ty));
        }
        hash.optional(result.map(|ty| self.of(ty)));
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finish()[..16]);
        Fingerprint(fingerprint)
    }

    /// The fingerprint of a service: a hash over the sorted fingerprints of its callable methods.
    pub(crate) fn service(methods: impl Iterator<Item = Fingerprint>) -> Fingerprint {
        let mut sorted: Vec<_> = methods.collect();
        sorted.sort_unstable();
        let mut hash = Hash::new("wharf service 1");
        hash.number(sorted.len());
        for method in sorted {
            hash.0.update(&method.0);
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&hash.finish()[..16]);
        Fingerprint(fingerprint)
    }

    fn of(&self, id: TypeId) -> &[u8; 32] {
        &self.0[id.0 as usize]
    }

    fn of_type(&self, ty: &Type) -> [u8; 32] {
        let kind = match ty {
            Type::Bool => "bool",
            Type::U8 => "u8",
            Type::U16 => "u16",
            Type::U32 => "u32",
            Type::U64 => "u64",
            Type::S8 => "s8",
            Type::S16 => "s16",
            Type::S32 => "s32",
            Type::S64 => "s64",
            Type::F32 => "f32",
            Type::F64 => "f64",
            Type::Char => "char",
            Type::String => "string",
            Type::Bytes => "bytes",
            Type::List(_) => "list",
            Type::FixedList(..) => "fixed-list",
            Type::Tuple(_) => "tuple",
            Type::Record(_) => "record",
            Type::Variant(_) => "variant",
            Type::Enum(_) => "enum",
            Type::Option(_) => "option",
            Type::Result { .. } => "result",
            Type::Flags(_) => "flags",
        };
        let mut hash = Hash::new(kind);
        match ty {
            Type::List(ty) | Type::Option(ty) => hash.digest(self.of(*ty)),
            Type::FixedList(ty, len) => {
                hash.digest(self.of(*ty));
                hash.number(*len as usize);
            }
            Type::Tuple(types) => {
                hash.number(types.len());
                types.iter().for_each(|ty| hash.digest(self.of(*ty)));
            }
            Type::Record(fields) => {
                hash.number(fields.len());
                for field in fields {
                    hash.text(&field.name);
                    hash.digest(self.of(field.ty));
                }
            }
            Type::Variant(cases) => {
                hash.number(cases.len());
                for case in cases {
                    hash.text(&case.name);
                    hash.optional(case.ty.map(|ty| self.of(ty)));
                }
            }
            Type::Enum(names) | Type::Flags(names) => {
                hash.number(names.len());
                names.iter().for_each(|name| hash.text(name));
            }
            Type::Result { ok, err } => {
                hash.optional(ok.map(|ty| self.of(ty)));
                hash.optional(err.map(|ty| self.of(ty)));
            }
            _ => {}
        }
        hash.finish()
    }
}

/// BLAKE3 over parts whose borders are unambiguous: each part has a fixed size, or its length comes
/// first.
struct Hash(blake3::Hasher);

impl Hash {
    fn new(kind: &str) -> Self {
        let mut hash = Hash(blake3::Hasher::new());
        hash.text(kind);
        hash
    }

    fn number(&mut self, number: usize) {
        self.0.update(&(number as u64).to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len());
        self.0.update(text.as_bytes());
    }

    fn digest(&mut self, digest: &[u8; 32]) {
        self.0.update(digest);
    }

    fn optional(&mut self, digest: Option<&[u8; 32]>) {
        self.0.update(&[u8::from(digest.is_some())]);
        if let Some(digest) = digest {
            self.digest(digest);
        }
    }

    fn finish(&self) -> [u8; 32] {
        *self.0.finalize().as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Field;

    fn record_method(method: &str, fields: &[&str], ty: Type) -> Fingerprint {
        let mut types = Types::default();
        let ty = types.add(ty).unwrap();
        let fields = fields.iter().map(|name| Field { name: (*name).into(), ty }).collect();
        let record = types.add(Type::Record(fields)).unwrap();
        Digests::new(&types).method(method, [record].into_iter(), Some(ty))
    }

    #[test]
    fn a_fingerprint_never_changes_between_releases() {
        let arith = record_method("multiply", &["a", "b"], Type::S64);
        assert_eq!(arith.to_string(), "8c5271fff12308832426464d37c999b3");
    }

    #[test]
    fn what_callers_write_is_in_it() {
        let arith = record_method("multiply", &["a", "b"], Type::S64);
        assert_ne!(arith, record_method("divide", &["a", "b"], Type::S64));
        assert_ne!(arith, record_method("multiply", &["a", "c"], Type::S64));
        assert_ne!(arith, record_method("multiply", &["b", "a"], Type::S64));
        assert_ne!(arith, record_method("multiply", &["a", "b"], Type::U64));
        assert_eq!(arith, record_method("multiply", &["a", "b"], Type::S64));
    }

    #[test]
    fn it_is_read_as_it_is_written() {
        let arith = record_method("multiply", &["a", "b"], Type::S64);
        assert_eq!(arith.to_string().parse(), Ok(arith));
        assert!("+f".repeat(16).parse::<Fingerprint>().is_err());
    }
}
