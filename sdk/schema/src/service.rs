//! A service: what can be called, and with what.

use std::collections::HashMap;

use crate::fingerprint::Digests;
use crate::name::NameIndex;
use crate::types::short;
use crate::{Fingerprint, ServiceName, Type, TypeId, Types};

/// One WIT interface that a plugin exports.
#[derive(Clone, Debug)]
pub struct Service {
    name: ServiceName,
    docs: String,
    wit: String,
    types: Types,
    labels: HashMap<TypeId, Label>,
    methods: Vec<Method>,
    index: NameIndex,
    fingerprint: Fingerprint,
}

/// What people call a record, variant, enum or flags, and say of it. It is not on the wire, so it is
/// known only where the WIT was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Label {
    /// As the WIT spells it.
    pub name: String,
    /// Its doc comment.
    pub docs: String,
    /// The doc comments of its fields, cases or labels, in order.
    pub members: Vec<String>,
}

/// One function of a service.
#[derive(Clone, Debug)]
pub struct Method {
    /// As the WIT spells it.
    pub name: String,
    /// The doc comment of its WIT.
    pub docs: String,
    /// Its parameters and result, or why it cannot be called from outside.
    pub signature: Result<Signature, String>,
}

/// The parameters and the result of a callable method.
#[derive(Clone, Debug)]
pub struct Signature {
    /// In order.
    pub params: Vec<Param>,
    /// The result, if there is one.
    pub result: Option<TypeId>,
    /// The fingerprint of the method's name and types.
    pub fingerprint: Fingerprint,
}

/// A parameter of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Param {
    /// In kebab-case.
    pub name: String,
    /// Its type.
    pub ty: TypeId,
}

/// A method before its fingerprint is known.
pub(crate) struct MethodParts {
    pub(crate) name: String,
    pub(crate) docs: String,
    pub(crate) signature: Result<(Vec<Param>, Option<TypeId>), String>,
}

impl Service {
    pub(crate) fn new(
        name: ServiceName,
        docs: String,
        wit: String,
        types: Types,
        methods: Vec<MethodParts>,
    ) -> Self {
        let digests = Digests::new(&types);
        let methods: Vec<Method> = methods
            .into_iter()
            .map(|MethodParts { name, docs, signature }| {
                let signature = signature.map(|(params, result)| Signature {
                    fingerprint: digests.method(&name, params.iter().map(|p| p.ty), result),
                    params,
                    result,
                });
                Method { name, docs, signature }
            })
            .collect();
        let callable = methods.iter().filter_map(|m| m.signature.as_ref().ok());
        let fingerprint = Digests::service(callable.map(|s| s.fingerprint));
        let index = NameIndex::new(methods.iter().map(|method| &method.name[..]));
        let labels = HashMap::new();
        Service { name, docs, wit, types, labels, methods, index, fingerprint }
    }

    /// The same service as whoever may see only some of its methods sees it. Nothing tells of the others:
    /// there are no WIT and no docs of the whole, and types that only the others have are left blank. Methods
    /// keep their fingerprints.
    #[must_use]
    pub fn part(&self, is_seen: impl Fn(&Method) -> bool) -> Self {
        let methods: Vec<Method> =
            self.methods.iter().filter(|method| is_seen(method)).cloned().collect();
        let signatures = methods.iter().filter_map(|method| method.signature.as_ref().ok());
        let named = signatures.flat_map(|s| s.params.iter().map(|param| param.ty).chain(s.result));
        let types = self.types.blanked_except(named);
        let callable = methods.iter().filter_map(|method| method.signature.as_ref().ok());
        let fingerprints = callable.map(|signature| signature.fingerprint);
        let labels = self.labels.iter().filter(|(ty, _)| types[**ty] == self.types[**ty]);
        Service {
            name: self.name.clone(),
            docs: String::new(),
            wit: String::new(),
            labels: labels.map(|(ty, label)| (*ty, label.clone())).collect(),
            types,
            index: NameIndex::new(methods.iter().map(|method| &method.name[..])),
            fingerprint: Digests::service(fingerprints),
            methods,
        }
    }

    /// The same service, with the names of its types.
    #[cfg(feature = "wit")]
    pub(crate) fn with_labels(self, labels: HashMap<TypeId, Label>) -> Self {
        Service { labels, ..self }
    }

    /// The name and the documentation of a type, if they are known.
    #[must_use]
    pub fn label(&self, ty: TypeId) -> Option<&Label> {
        self.labels.get(&ty)
    }

    /// The whole name, `demo:arith/arith@0.1.0`.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.name
    }

    /// The doc comment of its interface.
    #[must_use]
    pub fn docs(&self) -> &str {
        &self.docs
    }

    /// The interface as WIT, with its documentation.
    #[must_use]
    pub fn wit(&self) -> &str {
        &self.wit
    }

    /// The types that its signatures refer to.
    #[must_use]
    pub fn types(&self) -> &Types {
        &self.types
    }

    /// All methods, in the order of the WIT.
    #[must_use]
    pub fn methods(&self) -> &[Method] {
        &self.methods
    }

    /// The method of this name, in any spelling.
    #[must_use]
    pub fn method(&self, name: &str) -> Option<&Method> {
        self.methods.get(self.method_index(name)?)
    }

    /// The index of the method of this name, in any spelling. The time that it takes does not grow
    /// with the number of methods.
    #[must_use]
    pub fn method_index(&self, name: &str) -> Option<usize> {
        self.index.find(name)
    }

    /// The fingerprint of all callable methods. Services with the same fingerprint can replace each
    /// other.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// A method in WIT's notation, with its types written out as the fingerprint sees them.
    #[must_use]
    pub fn notation(&self, method: &Method) -> String {
        let mut text = format!("{}: func(", method.name);
        match &method.signature {
            Ok(signature) => {
                for (index, param) in signature.params.iter().enumerate() {
                    text.push_str(if index > 0 { ", " } else { "" });
                    if Types::is_long_enough(&mut text) {
                        break;
                    }
                    text.push_str(short(&param.name));
                    text.push_str(": ");
                    self.types.write(param.ty, &mut text);
                }
                text.push(')');
                if let Some(result) = signature.result {
                    text.push_str(" -> ");
                    self.types.write(result, &mut text);
                }
            }
            Err(_) => text.push_str("...)"),
        }
        text
    }
}

impl Signature {
    /// Whether the result is a WIT `result`. People then see its Err as the call's error.
    #[must_use]
    pub fn fallible(&self, types: &Types) -> bool {
        self.result.is_some_and(|ty| matches!(types[ty], Type::Result { .. }))
    }
}
