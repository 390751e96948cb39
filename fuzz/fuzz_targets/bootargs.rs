//! Any text as boot arguments: everything that the kernel reads from them, and settings for failures on request as they
//! are shown again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quarry::gfp::Gfp;
use quarry::kernel::bootargs::{BootArgs, parse_number, parse_size};
use quarry::kernel::log_level::LogArguments;
use quarry::mm::fault_inject::{FaultAttr, FaultContext, FaultInjector, FaultRequest, FaultSite};

/// Calls of each site: enough for most intervals, and not for ever.
const CALLS: u64 = 64;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = core::str::from_utf8(data) else { return };
    let args = BootArgs::new(text);
    for name in ["mem", "dma_zone", "min_free_kbytes", "watermark_scale_factor", "ktest"] {
        let _ = (args.flag(name), args.size(name), args.value(name).and_then(parse_number));
    }
    let _ = (LogArguments::parse(text), parse_size(text), parse_number(text));
    for site in FaultSite::ALL {
        let Some(Ok(attr)) = args.value(site.name()).map(|text| FaultAttr::parse(site, text)) else { continue };
        let shown = attr.to_string();
        assert_eq!(FaultAttr::parse(site, &shown), Ok(attr));
        let faults = FaultInjector::default();
        faults.configure(site, &attr);
        for size in 0..CALLS {
            let request = FaultRequest { context: FaultContext::new(0), gfp: Gfp::KERNEL, size };
            let _ = faults.should_fail(site, request);
        }
        let done = faults.statistics(site);
        assert!(done.forced <= done.eligible && done.eligible <= done.calls && done.calls <= CALLS);
        assert!(attr.times.is_none_or(|times| done.forced <= u64::from(times)));
    }
});
