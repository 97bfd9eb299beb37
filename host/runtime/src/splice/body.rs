//! Functions of a codec as they are written, and the few words that they are written in.

use wasm_encoder::{Function, InstructionSink, MemArg, ValType};

/// A function that grows: locals are added when they are needed.
pub(super) struct Body {
    pub(super) params: Vec<ValType>,
    pub(super) results: Vec<ValType>,
    locals: Vec<ValType>,
    code: Vec<u8>,
}

impl Body {
    pub(super) fn new(params: &[ValType], results: &[ValType]) -> Self {
        Body {
            params: params.to_vec(),
            results: results.to_vec(),
            locals: Vec::new(),
            code: Vec::new(),
        }
    }

    /// A local of its own.
    pub(super) fn local(&mut self, ty: ValType) -> u32 {
        self.locals.push(ty);
        index(self.params.len() + self.locals.len() - 1)
    }

    /// Goes on writing.
    pub(super) fn write(&mut self) -> InstructionSink<'_> {
        InstructionSink::new(&mut self.code)
    }

    pub(super) fn finish(mut self) -> Function {
        self.write().end();
        let mut function = Function::new_with_locals_types(self.locals);
        function.raw(self.code);
        function
    }
}

/// A place in a memory, beyond a pointer.
pub(super) fn at(memory: u32, offset: u32) -> MemArg {
    // Without a claim about alignment: it holds, and nobody gains by its being said.
    MemArg { offset: offset.into(), align: 0, memory_index: memory }
}

/// A count as an index. What is beyond is refused when the module is validated.
pub(super) fn index(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
