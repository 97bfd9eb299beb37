//! The plugins folder, and the services that are served from it.
//!
//! `folder` watches which files exist. `settling` decides when a file is complete. `sidecar` reads
//! the settings of a plugin, `file` its bytes, and `granting` decides what it
//! may reach. `compatible` says whom a replacement breaks. `load` loads one plugin, `loader` puts loaded plugins into `table`, and calls read `table`, which
//! finds services by `names`.

mod compatible;
mod file;
mod folder;
pub(crate) mod granting;
mod load;
mod loader;
mod names;
mod pin;
mod settling;
mod sidecar;
pub(crate) mod slot;
pub(crate) mod table;

pub use self::compatible::Compatible;
pub(crate) use self::folder::Folder;
pub(crate) use self::loader::Loader;
pub(crate) use self::names::Found;
