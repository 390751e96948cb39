//! The list of all rows, and running those that the boot arguments choose.

use crate::meter::{Figures, Meter, Unable};
#[cfg(feature = "peers")]
use crate::peers::ROWS as PEERS;
use crate::{
    areas, dmas, drivers, fast_path, heaps, ioremaps, mapping, memory, pages, percpus, quarry_areas, quarry_heap,
    quarry_pages, quarry_tables, user_pages, user_ranges, user_spaces, users, vmallocs,
};
use quarry::kernel::bootargs::BootArgs;
use quarry::kprintln;

/// One operation of one implementation.
#[derive(Clone, Copy)]
pub(crate) struct Row {
    /// `operation/parameter`.
    pub(crate) name: &'static str,
    /// Its crate: this kernel, or the name of a peer.
    pub(crate) by: &'static str,
    /// Sets it up and measures it.
    pub(crate) run: fn(&mut Meter) -> Result<Figures, Unable>,
}

/// The name of this kernel's own rows.
pub(crate) const QUARRY: &str = "quarry";

/// Every row of this kernel. A row is known to the runner by its place here, and behind these among the peers'.
const ROWS: &[&[Row]] = &[
    memory::ROWS,
    &mapping::rows::<quarry_tables::QuarryTables>(),
    &pages::rows::<quarry_pages::QuarryPages>(),
    &heaps::rows::<quarry_heap::Kmalloc>(),
    quarry_heap::ROWS,
    &areas::rows::<quarry_areas::QuarryAreas>(),
    vmallocs::ROWS,
    ioremaps::ROWS,
    percpus::ROWS,
    drivers::ROWS,
    dmas::ROWS,
    user_spaces::ROWS,
    user_pages::ROWS,
    user_ranges::ROWS,
    users::ROWS,
    fast_path::ROWS,
];

/// Nobody asked for peers.
#[cfg(not(feature = "peers"))]
const PEERS: &[&[Row]] = &[];

/// Runs the rows whose names contain a part of `bench.filter=` between commas, or whose numbers are in `bench.rows=`, and prints
/// each.
pub(crate) fn run(meter: &mut Meter, args: BootArgs<'_>) {
    let filter = args.value("bench.filter").unwrap_or("");
    let numbers = args.value("bench.rows");
    for (number, row) in ROWS.iter().chain(PEERS).copied().flatten().enumerate() {
        if !filter.split(',').any(|part| row.name.contains(part)) || numbers.is_some_and(|list| !names(list, number)) {
            continue;
        }
        // The runner's data of a row that ends the machine.
        kprintln!("bench: begin\t{number}\t{}\t{}", row.name, row.by);
        meter.begin();
        match (row.run)(meter) {
            Ok(_) if meter.is_tracing() => {
                let (count, left_out) = meter.traced();
                kprintln!("bench: traced\t{number}\t{count}\t{left_out}");
            }
            Ok(figures) if let Some(time) = figures.nanoseconds => {
                kprintln!("{} of {}: {} cycles, {time} ns", row.name, row.by, figures.batch_mean);
            }
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
