//! Any bytes as boot arguments: everything that the kernel reads from them, and settings for failures on request as they
//! are shown again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use quarry::gfp::Gfp;
use quarry::kernel::bootargs::{ARGUMENTS, BootArgs, parse_number, parse_size, parse_switch};
use quarry::kernel::log_level::LogArguments;
use quarry::mm::fault_inject::{FaultAttr, FaultContext, FaultInjector, FaultRequest, FaultSite};

/// Calls of each site: enough for most intervals, and not for ever.
const CALLS: u64 = 64;

fuzz_target!(|data: &[u8]| {
    let args = BootArgs::new(data);
    for (name, _) in ARGUMENTS {
        let _ = (args.flag(name), args.size(name), args.any_size(name), args.number(name), args.switch(name));
    }
    for complaint in args.complaints() {
        assert!(!complaint.to_string().contains('\n'));
    }
    for word in args.words() {
        let _ = (parse_size(word.text), parse_number(word.name), word.value.and_then(parse_switch));
    }
    let _ = (LogArguments::parse(args), args.to_string());
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
