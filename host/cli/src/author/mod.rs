//! What authors of services use: `wharf new`, `build`, `dev` and `test`, and what C needs to make a
//! component.
//!
//! A project is a directory with `wharf.toml` (`project`). `new` makes one out of `templates`, or out of an
//! interface (`interface`, `stubs`). `building` makes its component, `dev` serves that and follows changes
//! (`watching`), and `trying` makes the example calls of `calls`.

mod building;
mod calls;
mod componentize;
mod dev;
mod interface;
mod keywords;
mod new;
mod project;
mod stubs;
mod templates;
mod trying;
mod watching;

pub(crate) use self::building::run as build;
pub(crate) use self::componentize::{bindings, componentize};
pub(crate) use self::dev::run as dev;
pub(crate) use self::new::run as new;
pub(crate) use self::trying::run as test;
