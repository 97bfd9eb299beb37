//! How a caller's argument spelled what Go and WIT see differently. Go's programmers often use `int`
//! for everything, and a reply of another type would end their connection. So a reply uses what the
//! argument used.

/// The gob types that an argument used where WIT allows several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Mirror {
    signed: Seen,
    unsigned: Seen,
    enums: Seen,
    tags: Seen,
    flags: Seen,
}

/// The gob types that were seen for a kind of WIT type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Seen {
    int: bool,
    uint: bool,
    text: bool,
}

/// The gob type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Used {
    /// A signed integer.
    Int,
    /// An unsigned integer.
    Uint,
    /// A string.
    Text,
}

impl Seen {
    fn see(&mut self, used: Used) {
        match used {
            Used::Int => self.int = true,
            Used::Uint => self.uint = true,
            Used::Text => self.text = true,
        }
    }

    /// The only type that was seen; else the usual one.
    fn only(self, usual: Used) -> Used {
        match (self.int, self.uint, self.text) {
            (true, false, false) => Used::Int,
            (false, true, false) => Used::Uint,
            (false, false, true) => Used::Text,
            _ => usual,
        }
    }
}

impl Mirror {
    pub(super) fn saw_signed(&mut self, used: Used) {
        self.signed.see(used);
    }

    pub(super) fn saw_unsigned(&mut self, used: Used) {
        self.unsigned.see(used);
    }

    pub(super) fn saw_enum(&mut self, used: Used) {
        self.enums.see(used);
    }

    pub(super) fn saw_tag(&mut self, used: Used) {
        self.tags.see(used);
    }

    pub(super) fn saw_flags(&mut self, used: Used) {
        self.flags.see(used);
    }

    /// The type for WIT's signed integers.
    pub(super) fn signed(self) -> Used {
        self.signed.only(Used::Int)
    }

    /// The type for WIT's unsigned integers.
    pub(super) fn unsigned(self) -> Used {
        self.unsigned.only(Used::Uint)
    }

    /// The type for enums.
    pub(super) fn enums(self) -> Used {
        self.enums.only(Used::Int)
    }

    /// The type for the `Tag` of variants.
    pub(super) fn tags(self) -> Used {
        self.tags.only(Used::Text)
    }

    /// The type for flags.
    pub(super) fn flags(self) -> Used {
        match self.flags.only(Used::Uint) {
            Used::Text => Used::Uint,
            used => used,
        }
    }
}
