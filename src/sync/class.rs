//! The order of all locks: which there are, which may be taken while another one is held, and whether with interrupts
//! masked. docs/locks.md has it as a table, which a test compares with this one.
#![forbid(unsafe_code)]

/// With interrupts masked, or without.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Interrupts {
    /// Always masked: interrupt handlers take such locks too. Nobody waits for another CPU while one is held.
    Masked,
    /// Never masked once booting is over, and never in a handler: a CPU that waits for such a lock answers other CPUs, for
    /// which its holder may be waiting.
    Unmasked,
    /// As it comes, but never in a handler.
    Either,
}

/// Properties that all locks of one kind share.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LockClass {
    /// Name in reports.
    pub name: &'static str,
    /// Its place in the order: while a lock is held only locks of higher levels are taken.
    pub level: u8,
    /// How interrupts are meanwhile.
    pub interrupts: Interrupts,
}

/// A [`LockClass`] as a type, so that every lock has one, and knowing it costs nothing.
pub trait Class: 'static {
    /// The class.
    const CLASS: &'static LockClass;
}

macro_rules! lock_classes {
    ($($(#[$about:meta])* $Name:ident = $name:literal, $interrupts:ident;)*) => {
        #[repr(u8)]
        enum Level { $($Name),* }

        $(
            $(#[$about])*
            #[derive(Clone, Copy, Debug)]
            pub struct $Name;

            impl Class for $Name {
                const CLASS: &'static LockClass =
                    &LockClass { name: $name, level: Level::$Name as u8, interrupts: Interrupts::$interrupts };
            }
        )*

        /// All classes, in the order in which their locks are taken.
        pub const LOCK_CLASSES: &[&LockClass] = &[$($Name::CLASS),*];
    };
}

lock_classes! {
    /// Locks that an embedding kernel makes with [`Lock`](super::Lock): outside of all locks below it.
    Embedder = "embedding kernel", Either;
    /// CPUs come, go or are held one at a time.
    Hotplug = "cpu hotplug", Unmasked;
    /// Live mappings are changed by one CPU at a time, where the CPUs need not be held for it.
    LiveMappings = "live mappings", Unmasked;
    /// One CPU at a time makes room for more stacks.
    StackRows = "stack rows", Unmasked;
    /// Which caches there are.
    SlabRegistry = "slab caches", Unmasked;
    /// Memory before there is a page allocator.
    MemblockLists = "memblock", Unmasked;
    /// The fault that a kernel test has announced.
    ExpectedFault = "expected fault", Either;
    /// Which page tables a user address space has.
    UserTables = "user page tables", Either;
    /// The entries of user page tables for some of the addresses of a space.
    UserEntries = "user table entries", Either;
    /// Mappings of device memory.
    IoClaims = "device mappings", Masked;
    /// The tree of physical address ranges that somebody has requested.
    ResourceTree = "resource tree", Masked;
    /// Which bytes of per-CPU memory are in use.
    PerCpuChunks = "per-cpu chunks", Masked;
    /// The blocks of one pool of coherent memory.
    DmaPoolBlocks = "dma pool", Masked;
    /// Which mappings devices have, for the checks.
    DmaMappings = "dma mappings", Masked;
    /// Which uncached memory is in use.
    DmaReserves = "dma reserves", Masked;
    /// Which memory of devices' pools is in use.
    DmaDevicePools = "dma device pools", Masked;
    /// Which bounce slots are in use.
    BounceSlots = "bounce slots", Masked;
    /// Areas that are placed before there is memory for descriptors.
    EarlyAreas = "early areas", Masked;
    /// The areas in use, one lock for each part of them.
    BusyAreas = "busy areas", Masked;
    /// The gaps of a region of addresses.
    FreeAreas = "free areas", Masked;
    /// Reclaimers that have registered, one lock for each place.
    Tenant = "registered reclaimer", Masked;
    /// Whether a CPU is there.
    ComingAndGoing = "cpu coming and going", Masked;
    /// The page lists of CPUs that are not there.
    OfflineLists = "lists of offline cpus", Masked;
    /// The slabs of one cache.
    SlabNode = "slab node", Masked;
    /// The heap of booting.
    EarlyHeap = "early heap", Masked;
    /// Input of the watermarks' computation.
    WatermarkTuning = "watermark tuning", Masked;
    /// The free lists of a zone.
    Zone = "zone", Masked;
    /// The reserve of a memory pool. Nothing is taken inside of it, so elements are freed whatever else is held.
    Mempool = "mempool", Masked;
    /// The shared part of a counter of all CPUs. Nothing is taken inside of it.
    CounterFold = "per-cpu counter", Masked;
    /// Which numbers address spaces have. Nothing is taken inside of it.
    AsidNumbers = "address space numbers", Masked;
    /// The interrupt controller's registers that have no enable bit of their own.
    InterruptController = "interrupt controller", Masked;
    /// Visitor that is told of each instruction.
    StepVisitor = "step visitor", Masked;
    /// Lines on the console. Its owner may take it again: an exception in the middle of a line is reported.
    Console = "console", Masked;
}

// A lock that handlers take is never held while one is taken that they must not take: handlers would wait for it all the
// same, through the holder of the first.
const _: () = {
    let (mut rest, mut masked) = (LOCK_CLASSES, false);
    while let [class, after @ ..] = rest {
        masked |= matches!(class.interrupts, Interrupts::Masked);
        assert!(masked == matches!(class.interrupts, Interrupts::Masked), "locks taken unmasked come first");
        rest = after;
    }
};
