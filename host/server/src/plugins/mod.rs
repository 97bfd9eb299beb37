//! The plugins folder, and the services that are served from it.
//!
//! `folder` watches which files exist. `settling` decides when a file is complete. `sidecar` reads
//! the settings of a plugin. `loader` puts loaded plugins into `table`, and calls read `table`.

mod folder;
mod loader;
mod settling;
mod sidecar;
pub(crate) mod table;

pub(crate) use self::folder::Folder;
pub(crate) use self::loader::Loader;
