//! Conveniences for authors of plugins in Rust. None of them is needed: any component will do.
//!
//! ```ignore
//! wit_bindgen::generate!({ path: "wit" });
//! wharf_guest::wit_docs!("wit/arith.wit");
//! ```

/// Carries a WIT file's doc comments inside the plugin, for `wharf inspect` and the like.
///
/// A component has types but no documentation. This lays the file, found relative to the crate's
/// `Cargo.toml`, into a custom section named `wharf:wit` of the core module. It takes the file's
/// size, and no memory when the plugin runs. Outside of wasm it does nothing.
#[macro_export]
macro_rules! wit_docs {
    ($path:literal) => {
        #[cfg(target_family = "wasm")]
        const _: () = {
            const SOURCE: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/", $path));

            // A custom section is data that nothing links to and no code reads.
            #[allow(unsafe_code)]
            #[used]
            #[unsafe(link_section = "wharf:wit")]
            static SECTION: [u8; SOURCE.len() + 1] = {
                // The linker joins sections of one name: the zero byte after each keeps them apart.
                let mut section = [0; SOURCE.len() + 1];
                let mut at = 0;
                while at < SOURCE.len() {
                    section[at] = SOURCE[at];
                    at += 1;
                }
                section
            };
        };
    };
}
