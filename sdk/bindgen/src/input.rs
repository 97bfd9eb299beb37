//! The macro's input.

use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, LitStr, Token, braced, bracketed};

/// `"wit"`, or `{ path: "wit", world: "plugin", idempotent: ["multiply"] }`.
pub(crate) struct Input {
    /// The path of a WIT file, or of a folder of WIT files.
    pub(crate) path: LitStr,
    /// The world whose exports are called. Needed if the package has several.
    pub(crate) world: Option<LitStr>,
    /// Methods that may be executed more than once.
    pub(crate) idempotent: Vec<LitStr>,
    /// Features of the WIT whose `@unstable` items are wanted.
    pub(crate) features: Vec<LitStr>,
}

impl Parse for Input {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        if input.peek(LitStr) {
            let path = input.parse()?;
            return Ok(Input { path, world: None, idempotent: Vec::new(), features: Vec::new() });
        }
        let content;
        let brace = braced!(content in input);
        let (mut path, mut world) = (None, None);
        let (mut idempotent, mut features) = (Vec::new(), Vec::new());
        while !content.is_empty() {
            let key: Ident = content.parse()?;
            content.parse::<Token![:]>()?;
            match key.to_string().as_str() {
                "path" => path = Some(content.parse()?),
                "world" => world = Some(content.parse()?),
                "idempotent" => idempotent = texts(&content)?,
                "features" => features = texts(&content)?,
                other => {
                    let message = format!(
                        "no option '{other}': there are path, world, idempotent and features"
                    );
                    return Err(syn::Error::new(key.span(), message));
                }
            }
            if !content.is_empty() {
                content.parse::<Token![,]>()?;
            }
        }
        let path = path.ok_or_else(|| {
            syn::Error::new(brace.span.join(), "it lacks the path of the WIT: path: \"wit\"")
        })?;
        Ok(Input { path, world, idempotent, features })
    }
}

/// `["a", "b"]`
fn texts(content: ParseStream<'_>) -> syn::Result<Vec<LitStr>> {
    let list;
    bracketed!(list in content);
    let texts = Punctuated::<LitStr, Token![,]>::parse_terminated(&list)?;
    Ok(texts.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_alone_will_do_and_mistakes_are_named() {
        let input: Input = syn::parse_str("\"wit\"").unwrap();
        assert_eq!(input.path.value(), "wit");
        let all = r#"{ path: "wit", world: "plugin", idempotent: ["a", "b"], }"#;
        let input: Input = syn::parse_str(all).unwrap();
        assert_eq!((input.world.unwrap().value(), input.idempotent.len()), ("plugin".into(), 2));
        let error = |text| syn::parse_str::<Input>(text).err().unwrap().to_string();
        assert_eq!(error("{ world: \"w\" }"), "it lacks the path of the WIT: path: \"wit\"");
        assert!(error("{ paths: \"w\" }").contains("no option 'paths'"));
    }
}
