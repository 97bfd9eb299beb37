//! How a call ended: gRPC's status codes, by their numbers.

use serde::{Deserialize, Serialize};

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// The outcome of a call, with the meanings and numbers of gRPC's status codes
        /// (<https://grpc.io/docs/guides/status-codes/>).
        ///
        /// An application's own `result` error is a payload, not a status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(from = "u8", into = "u8")]
        #[repr(u8)]
        pub enum Status { $($(#[$doc])* $name = $code),* }

        impl Status {
            /// Every status, in the order of its code.
            pub const ALL: [Status; 17] = [$(Status::$name),*];

            /// The name in gRPC's spelling, `DEADLINE_EXCEEDED`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Status::$name => $text),* }
            }
        }
    };
}

statuses! {
    /// The call succeeded.
    Ok = 0, "OK";
    /// The caller cancelled it.
    Cancelled = 1, "CANCELLED";
    /// Nothing more is known. Also stands for a code that this side does not know.
    Unknown = 2, "UNKNOWN";
    /// The arguments do not fit the method's types.
    InvalidArgument = 3, "INVALID_ARGUMENT";
    /// The deadline passed before the call was done.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED";
    /// What was asked for does not exist.
    NotFound = 5, "NOT_FOUND";
    /// The thing to create exists already.
    AlreadyExists = 6, "ALREADY_EXISTS";
    /// The caller may not do this.
    PermissionDenied = 7, "PERMISSION_DENIED";
    /// A queue, memory or another limit is exhausted.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED";
    /// The caller was built against another schema than the one served: see the Fail's detail.
    FailedPrecondition = 9, "FAILED_PRECONDITION";
    /// The operation was aborted, and may be retried as a whole.
    Aborted = 10, "ABORTED";
    /// Past the valid range.
    OutOfRange = 11, "OUT_OF_RANGE";
    /// The method cannot be called, or does not exist.
    Unimplemented = 12, "UNIMPLEMENTED";
    /// The plugin failed: it trapped, or broke the rules of its interface.
    Internal = 13, "INTERNAL";
    /// The service cannot be reached at the moment.
    Unavailable = 14, "UNAVAILABLE";
    /// Data were lost for good.
    DataLoss = 15, "DATA_LOSS";
    /// The caller did not say, or could not prove, who it is.
    Unauthenticated = 16, "UNAUTHENTICATED";
}

impl Status {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<u8> for Status {
    /// A code beyond the seventeen reads as [`Status::Unknown`], so that a later protocol can add
    /// codes.
    fn from(code: u8) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(Status::Unknown)
    }
}

impl From<Status> for u8 {
    fn from(status: Status) -> Self {
        status.code()
    }
}

impl std::fmt::Display for Status {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_grpcs_numbers() {
        for (code, status) in (0u8..).zip(Status::ALL) {
            assert_eq!(status.code(), code);
            assert_eq!(Status::from(code), status);
        }
        assert_eq!(Status::DeadlineExceeded.code(), 4);
        assert_eq!(Status::Unauthenticated.code(), 16);
        assert_eq!(Status::from(17), Status::Unknown);
    }
}
