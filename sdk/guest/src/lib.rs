//! Conveniences for authors of plugins in Rust. None of them is required: any component works.
//!
//! ```ignore
//! wit_bindgen::generate!({ path: "wit" });
//! wharf_guest::wit_docs!("wit/arith.wit");
//! ```

/// Puts a WIT file's doc comments into the plugin, for `wharf inspect` and similar tools.
///
/// A component has types but no documentation. This macro copies the file into a custom section of
/// the core module, named `wharf:wit`. The path is relative to the crate's `Cargo.toml`. The plugin
/// grows by the file's size, but needs no more memory when it runs. Outside of wasm the macro does
/// nothing.
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
                // The linker joins sections with the same name. The zero byte after each separates
                // them.
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
