//! Generates typed client stubs from a service's WIT: `wharf_client::bindgen!` expands to them.
//!
//! It reads only the WIT. It needs no network and no build script. It must not know how a call is
//! made: the generated code calls `wharf_client::stub`.

mod input;
mod interface;
mod names;
mod types;
mod wit;

use proc_macro::TokenStream;
use quote::quote;

use self::input::Input;

/// Typed stubs for the services of a WIT package; see `wharf_client::bindgen`.
#[proc_macro]
pub fn bindgen(input: TokenStream) -> TokenStream {
    let input = syn::parse_macro_input!(input as Input);
    // Paths are relative to the package that uses the macro.
    let base = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let generated = wit::load(base.as_ref(), &input).and_then(|loaded| {
        let modules = interface::modules(&loaded, &input)?;
        let sources = loaded.sources.iter().filter_map(|path| path.to_str());
        // This tells the compiler which files were read, so that it runs again when they change.
        Ok(quote! {
            #modules
            const _: &[&[u8]] = &[#(::core::include_bytes!(#sources)),*];
        })
    });
    match generated {
        Ok(tokens) => tokens.into(),
        Err(error) => syn::Error::new(input.path.span(), error).to_compile_error().into(),
    }
}
