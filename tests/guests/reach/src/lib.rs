//! Tries to use the environment, files, TCP and HTTP, and returns the results.

// The generated bindings are not ours to lint.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, clippy::pedantic)]
mod bindings {
    use super::Plugin;

    wit_bindgen::generate!({ path: "wit", world: "plugin" });
    export!(Plugin);
}

use std::io::{BufRead, BufReader};
use std::net::TcpStream;

use bindings::exports::test::reach::reach::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};

struct Plugin;

impl Guest for Plugin {
    fn variable(name: String) -> Option<String> {
        std::env::var(name).ok()
    }

    fn read(path: String) -> Result<String, String> {
        std::fs::read_to_string(path).map_err(|error| error.to_string())
    }

    fn write(path: String, content: String) -> Result<(), String> {
        std::fs::write(path, content).map_err(|error| error.to_string())
    }

    fn connect(address: String) -> Result<String, String> {
        let stream = TcpStream::connect(address).map_err(|error| error.to_string())?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).map_err(|error| error.to_string())?;
        Ok(line)
    }

    fn fetch(authority: String) -> Result<u16, String> {
        let request = OutgoingRequest::new(Fields::new());
        let set = |what: Result<(), ()>| what.map_err(|()| "the request is refused".to_owned());
        set(request.set_scheme(Some(&Scheme::Http)))?;
        set(request.set_authority(Some(&authority)))?;
        set(request.set_path_with_query(Some("/")))?;
        let failed = |error: outgoing_handler::ErrorCode| format!("{error:?}");
        let answer = outgoing_handler::handle(request, None).map_err(failed)?;
        answer.subscribe().block();
        let answer = answer.get().ok_or("no answer")?.map_err(|()| "taken already")?;
        answer.map(|answer| answer.status()).map_err(failed)
    }
}
