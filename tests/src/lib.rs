//! Code that the tests and benches share: processes, guests, waiting.

mod fleet;
mod golang;
mod guests;
mod http;
mod link;
mod load;
mod process;
mod programs;
mod proxy;
mod registry;
mod tongues;
mod waiting;

pub use fleet::{DOMAIN, Fleet, FleetHost};
pub use golang::go_program;
pub use guests::{
    arith_reordered, arith_that, big, component, component_in_utf16, hard_to_compile, heavy,
    hostile, imports_the_unknown, many_methods, never_starts, renamed, with_section,
};
pub use http::{
    client as http_client, client_that_trusts_all as http_client_that_trusts_all, get, get_json,
};
pub use link::{Alone, Link};
pub use load::Load;
pub use process::{Finished, Process, Wharf, client, example, guest, plugin, run_command, wharf};
pub use programs::{EtcdCluster, Member, free_port, installed, tool};
pub use proxy::Proxy;
pub use registry::{RegistryProcess, declaration};
pub use tongues::Tongue;
pub use waiting::{eventually, within};

use serde::{Deserialize, Serialize};

/// The arguments of `demo:arith/arith`, written without generated code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Args {
    /// The first operand.
    pub a: i64,
    /// The second operand.
    pub b: i64,
}

/// The result of a division in `demo:arith/arith`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quotient {
    /// The quotient.
    pub quo: i64,
    /// The remainder.
    pub rem: i64,
}

/// The error of `demo:arith/arith`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArithError {
    /// `b` is zero.
    DivideByZero,
    /// The quotient is too large.
    Overflow(i64),
}
