//! The zero of a type as JSON.

use wharf_schema::{Type, TypeId, Types};

/// What Go's client gets where there is no value: its zero, which leaves its reply as it is. The
/// client gives up on `null`.
pub(super) fn zero(types: &Types, ty: Option<TypeId>) -> String {
    let Some(ty) = ty else { return "{}".to_owned() };
    match &types[ty] {
        Type::Option(some) => zero(types, Some(*some)),
        Type::Result { ok, .. } => zero(types, *ok),
        Type::Bool => "false".to_owned(),
        Type::U8
        | Type::U16
        | Type::U32
        | Type::U64
        | Type::S8
        | Type::S16
        | Type::S32
        | Type::S64
        | Type::F32
        | Type::F64 => "0".to_owned(),
        Type::Char | Type::String | Type::Bytes | Type::Enum(_) => "\"\"".to_owned(),
        Type::List(_) | Type::FixedList(..) | Type::Tuple(_) | Type::Flags(_) => "[]".to_owned(),
        Type::Record(_) | Type::Variant(_) => "{}".to_owned(),
    }
}
