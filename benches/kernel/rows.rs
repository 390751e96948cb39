//! The list of all rows, and running those that the boot arguments choose.

use crate::meter::{Figures, Meter, Unable};
use crate::{
    areas, fast_path, heap, heaps, ioremaps, mapping, memory, pages, peers, quarry_areas, quarry_heap, quarry_pages,
    quarry_tables, vmallocs,
};
use quarry::kernel::bootargs::BootArgs;
use quarry::kprintln;

/// One operation of one implementation.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// `operation/parameter`.
    pub(crate) name: &'static str,
    /// Who does it: this kernel, or the name of a crate.
    pub(crate) by: &'static str,
    /// Sets it up and measures it.
    pub(crate) run: fn(&mut Meter) -> Result<Figures, Unable>,
}

/// The name of this kernel's own rows.
pub(crate) const QUARRY: &str = "quarry";

/// Every row there is. A row is known to the runner by its place here.
const ROWS: &[&[Row]] = &[
    memory::ROWS,
    &mapping::rows::<quarry_tables::QuarryTables>(),
    &mapping::rows::<peers::page_table_multiarch::Tables>(),
    &mapping::rows::<peers::aarch64_paging::Tables>(),
    &pages::rows::<quarry_pages::QuarryPages>(),
    &pages::rows::<peers::bitmap_allocator::Pages>(),
    &pages::rows::<peers::buddy_alloc::Pages>(),
    &pages::rows::<peers::buddy_slab_allocator::Pages>(),
    &pages::rows::<peers::buddy_system_allocator::Pages>(),
    &pages::rows::<peers::free_list::Pages>(),
    &pages::rows::<peers::linked_list_allocator::Pages>(),
    &pages::rows::<peers::talc::Pages>(),
    &heaps::rows::<quarry_heap::Kmalloc>(),
    quarry_heap::ROWS,
    &heaps::rows::<heap::peers::ax_allocator::Slabs>(),
    &heaps::rows::<heap::peers::buddy_alloc::FastBuddy>(),
    &heaps::rows::<heap::peers::buddy_slab_allocator::SlabsOverBuddy>(),
    &heaps::rows::<heap::peers::buddy_system_allocator::Buddy>(),
    &heaps::rows::<heap::peers::dlmalloc::Dlmalloc>(),
    &heaps::rows::<heap::peers::embedded_alloc::Embedded>(),
    &heaps::rows::<heap::peers::good_memory_allocator::Bins>(),
    &heaps::rows::<heap::peers::linked_list_allocator::List>(),
    &heaps::rows::<heap::peers::rlsf::Tlsf>(),
    &heaps::rows::<heap::peers::slab_allocator_rs::Eighths>(),
    &heaps::rows::<heap::peers::slabmalloc::Zone>(),
    &heaps::rows::<heap::peers::talc::Binned>(),
    &areas::rows::<quarry_areas::QuarryAreas>(),
    &areas::rows::<peers::memory_set::Areas>(),
    &areas::rows::<peers::vmem::Areas>(),
    vmallocs::ROWS,
    ioremaps::ROWS,
    fast_path::ROWS,
];

/// Runs the rows whose names contain `bench.filter=`, or whose numbers are in `bench.rows=`, and prints each.
pub(crate) fn run(meter: &mut Meter, args: BootArgs<'_>) {
    let filter = args.value("bench.filter").unwrap_or("");
    let numbers = args.value("bench.rows");
    for (number, row) in ROWS.iter().copied().flatten().enumerate() {
        if !row.name.contains(filter) || numbers.is_some_and(|list| !names(list, number)) {
            continue;
        }
        // What the runner knows of a row that ends the machine.
        kprintln!("bench: begin\t{number}\t{}\t{}", row.name, row.by);
        meter.begin();
        match (row.run)(meter) {
            Ok(_) if meter.is_tracing() => kprintln!("bench: traced\t{number}\t{}", meter.traced()),
            Ok(figures) => kprintln!("bench: row\t{number}\t{}\t{}\t{figures}", row.name, row.by),
            Err(why) => kprintln!("bench: unable\t{number}\t{}\t{}\t{why}", row.name, row.by),
        }
    }
    kprintln!("bench: end");
}

/// Whether a list such as `0-3,7` names `number`.
fn names(list: &str, number: usize) -> bool {
    list.split(',').any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.parse::<usize>(), last.parse::<usize>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&number))
    })
}
