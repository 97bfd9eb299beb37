//! The plugins folder, and what is served out of it.
//!
//! `folder` sees which files are there, `settling` when a file is complete, `sidecar` what its operator
//! says of it. The `loader` brings all of that into the `table`, which is what calls read.

mod folder;
mod loader;
mod settling;
mod sidecar;
pub(crate) mod table;

pub(crate) use self::folder::Folder;
pub(crate) use self::loader::Loader;
