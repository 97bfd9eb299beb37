//! How many instances fit into the host, all plugins together.
//!
//! wasmtime's pooling allocator reserves addresses for all instances at the start and makes each
//! instance from a slot. It fails when no slot is left. Wharf therefore counts slots before it asks
//! the allocator, so that a caller gets the error [`crate::InvokeError::HostFull`] instead.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::component::Component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

/// The number of memories that all instances may have together. Each reserves a little more than
/// 4 GiB of the 128 TiB of addresses that a process has. The second number is for systems that
/// allow fewer addresses.
const MEMORIES: [u32; 2] = [8192, 1024];

/// Tables for each of these memories. A module has one, and the shim module that wit-component adds
/// has another.
const TABLES_PER_MEMORY: u32 = 2;

/// Elements that a table may have. Guests in C#, Go or Python put all their functions into one
/// table.
const TABLE_ELEMENTS: usize = 100_000;

/// The most core instances, memories and tables of one instance.
pub(crate) const MAX_CORE_INSTANCES: usize = 256;
pub(crate) const MAX_MEMORIES: usize = 16;
pub(crate) const MAX_TABLES: usize = 256;

/// The most bytes that wasmtime may use for its own data about one instance.
const MAX_INSTANCE_SIZE: usize = 16 * 1024 * 1024;

/// Bytes of a memory, a table and a stack that a slot keeps when its instance ends. Clearing them
/// is faster than returning them to the system and faulting them in again. If the system reports
/// which pages were written (Linux 6.7), the slot keeps those pages. Otherwise it keeps the first
/// pages of a memory; there, a guest in Rust only has the end of its stack.
const KEEP_MEMORY: usize = 128 * 1024;
const KEEP_TABLE: usize = 4 * 1024;
const KEEP_STACK: usize = 16 * 1024;

/// How many of the free slots keep these bytes.
const WARM_SLOTS: u32 = 64;

/// The room for instances. Clones share it.
#[derive(Clone)]
pub(crate) struct Capacity(Arc<Left>);

struct Left {
    memories: AtomicUsize,
    tables: AtomicUsize,
    stacks: AtomicUsize,
}

/// What one instance of a plugin needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Needs {
    memories: usize,
    tables: usize,
}

/// Room for one instance. Dropping it gives the room back.
pub(crate) struct Room {
    capacity: Capacity,
    needs: Needs,
}

impl Capacity {
    /// Prepares `config` for as many instances as this machine allows. `make` creates the engine.
    pub(crate) fn provide(
        config: &mut Config,
        make: impl Fn(&Config) -> wasmtime::Result<wasmtime::Engine>,
    ) -> wasmtime::Result<(wasmtime::Engine, Capacity)> {
        for memories in MEMORIES {
            config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(memories)));
            match make(config) {
                Ok(engine) => return Ok((engine, Capacity::new(memories))),
                Err(error) => {
                    tracing::debug!(memories, "cannot reserve so many memories: {error:#}");
                }
            }
        }
        tracing::warn!(
            "the system does not allow enough addresses for a pool of instances, so each instance is allocated separately, which is slower; check 'ulimit -v'"
        );
        config.allocation_strategy(InstanceAllocationStrategy::OnDemand);
        let [.., memories] = MEMORIES;
        Ok((make(config)?, Capacity::new(memories)))
    }

    fn new(memories: u32) -> Self {
        Capacity(Arc::new(Left {
            memories: AtomicUsize::new(memories as usize),
            tables: AtomicUsize::new((memories * TABLES_PER_MEMORY) as usize),
            stacks: AtomicUsize::new(memories as usize),
        }))
    }

    /// Takes room for an instance, if any is left.
    pub(crate) fn take(&self, needs: Needs) -> Option<Room> {
        let wanted = self.wanted(needs);
        for (taken, (left, count)) in wanted.iter().enumerate() {
            let enough = |left: usize| left.checked_sub(*count);
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, enough).is_err() {
                give_back(&wanted[..taken]);
                return None;
            }
        }
        Some(Room { capacity: self.clone(), needs })
    }

    fn wanted(&self, needs: Needs) -> [(&AtomicUsize, usize); 3] {
        let Left { memories, tables, stacks } = &*self.0;
        [(memories, needs.memories), (tables, needs.tables), (stacks, 1)]
    }
}

fn give_back(taken: &[(&AtomicUsize, usize)]) {
    for (left, count) in taken {
        left.fetch_add(*count, Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        give_back(&self.capacity.wanted(self.needs));
    }
}

impl Needs {
    pub(crate) fn of(component: &Component) -> Self {
        // The needs of a component that imports modules are unknown. Such a component cannot be
        // linked, so it never needs room.
        let required = component.resources_required();
        let (memories, tables) = required.map_or((0, 0), |r| (r.num_memories, r.num_tables));
        Needs { memories: memories as usize, tables: tables as usize }
    }
}

fn pool(memories: u32) -> PoolingAllocationConfig {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    // wasmtime only counts instances. It reserves nothing for them, so a large number costs
    // nothing.
    pool.total_component_instances(memories)
        .total_core_instances(memories.saturating_mul(count(MAX_CORE_INSTANCES)))
        .total_memories(memories)
        .total_tables(memories * TABLES_PER_MEMORY)
        .total_stacks(memories)
        .max_core_instances_per_component(count(MAX_CORE_INSTANCES))
        .max_memories_per_component(count(MAX_MEMORIES))
        .max_tables_per_component(count(MAX_TABLES))
        .max_memories_per_module(count(MAX_MEMORIES))
        .max_tables_per_module(count(MAX_TABLES))
        .max_component_instance_size(MAX_INSTANCE_SIZE)
        .max_core_instance_size(MAX_INSTANCE_SIZE)
        .table_elements(TABLE_ELEMENTS)
        // Each plugin has its own, lower limit.
        .max_memory_size(1 << 32)
        .linear_memory_keep_resident(KEEP_MEMORY)
        .table_keep_resident(KEEP_TABLE)
        .async_stack_keep_resident(KEEP_STACK)
        .pagemap_scan(Enabled::Auto)
        .max_unused_warm_slots(WARM_SLOTS);
    pool
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_taken_whole_or_not_at_all_and_comes_back() {
        let capacity = Capacity::new(4);
        let needs = Needs { memories: 3, tables: 1 };
        let room = capacity.take(needs);
        assert!(room.is_some());
        assert!(capacity.take(needs).is_none());
        assert!(capacity.take(Needs { memories: 1, tables: 8 }).is_none());
        assert!(capacity.take(Needs { memories: 1, tables: 7 }).is_some());
        drop(room);
        assert!(capacity.take(Needs { memories: 4, tables: 8 }).is_some());
    }
}
