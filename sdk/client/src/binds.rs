//! Short names that a program has bound to one service each.

use std::collections::HashMap;

use wharf_schema::{NameError, ServiceName};

/// For each short name, the package and perhaps the version that it stands for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Binds(HashMap<String, ServiceName>);

impl Binds {
    /// # Errors
    /// When one of the names is not a service's, or the full one has no package.
    pub(crate) fn add(&mut self, short: &str, full: &str) -> Result<(), BindError> {
        let (short, full) = (ServiceName::parse(short)?, ServiceName::parse(full)?);
        if full.package.is_none() || short.interface != full.interface {
            return Err(BindError::NotItsName { short: short.to_string(), full: full.to_string() });
        }
        self.0.insert(short.interface, full);
        Ok(())
    }

    /// Completes a name without a package, if it is bound.
    pub(crate) fn complete(&self, service: &mut ServiceName) {
        if service.package.is_some() {
            return;
        }
        let Some(full) = self.0.get(&service.interface) else { return };
        service.package.clone_from(&full.package);
        if service.version.is_none() && service.requirement.is_none() {
            service.version.clone_from(&full.version);
            service.requirement.clone_from(&full.requirement);
        }
    }
}

/// A short name that cannot be bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BindError {
    /// One of the two is not the name of a service.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The full name has no package, or is that of another interface.
    #[error(
        "'{short}' cannot stand for '{full}': write the same interface with its package, as in demo:arith/arith"
    )]
    NotItsName {
        /// The short name.
        short: String,
        /// What it was to stand for.
        full: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_name_gets_its_package_and_a_version_unless_it_has_one() {
        let mut binds = Binds::default();
        binds.add("Arith", "demo:arith/arith@^0.1").unwrap();
        for (name, expected) in [
            ("arith", "demo:arith/arith@^0.1"),
            ("arith@0.1.3", "demo:arith/arith@0.1.3"),
            ("acme:x/arith", "acme:x/arith"),
            ("other", "other"),
        ] {
            let mut service = ServiceName::parse(name).unwrap();
            binds.complete(&mut service);
            assert_eq!(service.to_string(), expected);
        }
        assert!(matches!(binds.add("arith", "arith"), Err(BindError::NotItsName { .. })));
        assert!(matches!(binds.add("arith", "a:b/other"), Err(BindError::NotItsName { .. })));
        assert!(matches!(binds.add("", "a:b/c"), Err(BindError::Name(_))));
    }
}
