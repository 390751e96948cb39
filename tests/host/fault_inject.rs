//! Failures on request: each setting by itself, the written form, and the driver on operations with known faults.

use proptest::prelude::*;
use quarry::gfp::Gfp;
use quarry::mm::fault_inject::{
    FaultArgError, FaultAttr, FaultContext, FaultFinding, FaultInjector, FaultRequest, FaultSite, FaultTarget,
    MayRecover, Probability, Rounds, Verbosity, fail_every,
};
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering};

const HERE: FaultContext = FaultContext::new(3);

fn request(gfp: Gfp, size: u64) -> FaultRequest {
    FaultRequest { context: HERE, gfp, size }
}

/// Which of `calls` calls for one unit fail.
fn pattern(faults: &FaultInjector, calls: u32) -> Vec<bool> {
    (0..calls).map(|_| faults.should_fail(FaultSite::Slab, request(Gfp::KERNEL, 1))).collect()
}

fn with(attr: FaultAttr) -> FaultInjector {
    let faults = FaultInjector::default();
    faults.configure(FaultSite::Slab, &attr);
    faults
}

fn count(pattern: &[bool]) -> usize {
    pattern.iter().filter(|failed| **failed).count()
}

// Behaviour 495.
#[test]
fn nothing_fails_unless_it_is_asked_to() {
    let faults = FaultInjector::default();
    assert!(!faults.is_armed());
    for site in FaultSite::ALL {
        assert!(!faults.should_fail(site, request(Gfp::ATOMIC, 1 << 20)));
        assert_eq!(faults.statistics(site).calls, 0, "not even counted");
        assert_eq!(faults.attr(site), FaultAttr::off(site));
    }
}

// Behaviour 495.
#[test]
fn one_of_every_interval_fails() {
    for interval in [0, 1] {
        assert_eq!(count(&pattern(&with(FaultAttr { interval, ..FaultAttr::always() }), 10)), 10);
    }
    let pattern = pattern(&with(FaultAttr { interval: 3, ..FaultAttr::always() }), 10);
    assert_eq!(pattern, [false, false, true, false, false, true, false, false, true, false]);
}

// Behaviour 495: about as many as the probability says, and the same ones for the same seed.
#[test]
fn chances_come_from_the_seed() {
    let run = |seed, thousandths| {
        let probability = Probability::per_mille(thousandths).unwrap();
        pattern(&with(FaultAttr { probability, seed, ..FaultAttr::always() }), 20_000)
    };
    for (thousandths, about) in [(1, 20), (50, 1000), (500, 10_000), (999, 19_980)] {
        let first = run(7, thousandths);
        let failed = count(&first);
        // Five standard deviations and a bit.
        let tolerance = 20 + 5 * 71 * usize::from(thousandths == 500) + 160 * usize::from(thousandths == 50);
        assert!(failed.abs_diff(about) <= tolerance, "{thousandths} per mille: {failed}");
        assert_eq!(run(7, thousandths), first);
        assert_ne!(run(8, thousandths), first);
    }
    assert_eq!(count(&run(7, 0)), 0);
    assert_eq!(count(&run(7, 1000)), 20_000);
}

// Behaviour 495.
#[test]
fn it_fails_no_more_times_than_allowed() {
    for times in [0, 1, 4] {
        let faults = with(FaultAttr { times: Some(times), interval: 2, ..FaultAttr::always() });
        let pattern = pattern(&faults, 20);
        assert_eq!(count(&pattern), times as usize);
        assert!(pattern[2 * times as usize..].iter().all(|failed| !failed));
        assert_eq!(faults.attr(FaultSite::Slab).times, Some(0));
    }
    assert_eq!(count(&pattern(&with(FaultAttr::always()), 5000)), 5000);
}

// Behaviour 495: calls pass until they have asked for so much.
#[test]
fn space_is_used_up_first() {
    let faults = with(FaultAttr { space: 100, ..FaultAttr::always() });
    let ask = |size| faults.should_fail(FaultSite::Slab, request(Gfp::KERNEL, size));
    assert!(!ask(60) && !ask(30));
    assert!(ask(10), "as much as is left");
    assert!(!ask(9));
    assert!(ask(1) && ask(1000));
}

// Behaviour 495: filters by flags, size and context; calls that they stop count for nothing.
#[test]
fn filters_let_others_pass() {
    let faults = with(FaultAttr { ignore: Gfp::DIRECT_RECLAIM, interval: 2, ..FaultAttr::always() });
    let ask = |faults: &FaultInjector, gfp, size| faults.should_fail(FaultSite::Slab, request(gfp, size));
    assert!(!ask(&faults, Gfp::ATOMIC, 1));
    assert!(!ask(&faults, Gfp::KERNEL, 1));
    assert!(!ask(&faults, Gfp::NOIO, 1));
    assert!(ask(&faults, Gfp::ATOMIC, 1), "the second that is eligible");
    let statistics = faults.statistics(FaultSite::Slab);
    assert_eq!((statistics.calls, statistics.eligible, statistics.forced), (4, 2, 1));

    let faults = with(FaultAttr { only: Gfp::ZERO | Gfp::ACCOUNT, ..FaultAttr::always() });
    assert!(!ask(&faults, Gfp::KERNEL | Gfp::ZERO, 1));
    assert!(ask(&faults, Gfp::KERNEL_ACCOUNT | Gfp::ZERO, 1));

    let faults = with(FaultAttr { min_size: 65, ..FaultAttr::always() });
    assert!(!ask(&faults, Gfp::KERNEL, 64) && ask(&faults, Gfp::KERNEL, 65));

    let faults = with(FaultAttr { context: Some(HERE), ..FaultAttr::always() });
    assert!(ask(&faults, Gfp::KERNEL, 1));
    for other in [FaultContext::new(4), FaultContext::INTERRUPT] {
        let elsewhere = FaultRequest { context: other, ..request(Gfp::KERNEL, 1) };
        assert!(!faults.should_fail(FaultSite::Slab, elsewhere));
    }
    let faults = with(FaultAttr::always());
    assert!(!ask(&faults, Gfp::KERNEL | Gfp::NOFAIL, 1), "whoever must not fail");
    assert!(!faults.should_fail(FaultSite::PageAlloc, request(Gfp::KERNEL, 1)), "another site");
}

// Behaviour 495: Linux's defaults.
#[test]
fn failslab_spares_callers_that_may_wait_by_default() {
    let faults = with(FaultAttr::parse(FaultSite::Slab, "1,100,0,-1,verbose=0").unwrap());
    assert_eq!(count(&pattern(&faults, 10)), 0);
    assert!(faults.should_fail(FaultSite::Slab, request(Gfp::ATOMIC, 1)));
    let faults = with(FaultAttr::parse(FaultSite::Slab, "1,100,0,-1,verbose=0,ignore-gfp-wait=0").unwrap());
    assert_eq!(count(&pattern(&faults, 10)), 10);
}

#[test]
fn a_forced_failure_prints_the_stack_if_it_shall() {
    static PRINTED: AtomicU32 = AtomicU32::new(0);
    for (verbose, gfp, printed) in [
        (Verbosity::Silent, Gfp::KERNEL, 0),
        (Verbosity::Line, Gfp::KERNEL, 0),
        (Verbosity::Stack, Gfp::KERNEL, 1),
        (Verbosity::Stack, Gfp::KERNEL | Gfp::NOWARN, 0),
    ] {
        let faults = FaultInjector::new(|| {
            PRINTED.fetch_add(1, Ordering::Relaxed);
        });
        faults.configure(FaultSite::Slab, &FaultAttr { verbose, ..FaultAttr::always() });
        assert!(faults.should_fail(FaultSite::Slab, request(gfp, 1)));
        assert_eq!(PRINTED.swap(0, Ordering::Relaxed), printed, "{verbose:?}");
    }
}

#[test]
fn the_nth_call_fails_on_whichever_site_it_is() {
    let faults = FaultInjector::default();
    let armed = faults.fail_nth(HERE, 3).unwrap();
    assert!(faults.is_armed());
    let ask = |site, gfp| faults.should_fail(site, request(gfp, 1));
    assert!(!ask(FaultSite::PageAlloc, Gfp::KERNEL));
    assert!(!ask(FaultSite::Slab, Gfp::KERNEL | Gfp::NOFAIL), "not counted");
    assert!(!ask(FaultSite::VmapArea, Gfp::KERNEL));
    assert!(!armed.has_failed());
    assert!(ask(FaultSite::PageTable, Gfp::KERNEL));
    assert!(armed.has_failed() && !ask(FaultSite::PageTable, Gfp::KERNEL));
    assert_eq!(faults.statistics(FaultSite::PageTable).nth, 1);
    drop(armed);
    assert!(!faults.is_armed());
}

#[test]
fn several_contexts_are_counted_at_once_but_not_without_end() {
    let faults = FaultInjector::default();
    let armed: Vec<_> = (0..100).map_while(|number| faults.fail_nth(FaultContext::new(number), 1).ok()).collect();
    assert!(armed.len() >= 4 && armed.len() < 100);
    assert!(faults.fail_nth(FaultContext::INTERRUPT, 1).is_err());
    let ask = |context| faults.should_fail(FaultSite::Slab, FaultRequest { context, ..request(Gfp::KERNEL, 1) });
    for number in 0..armed.len() {
        assert!(ask(FaultContext::new(u32::try_from(number).unwrap())));
    }
    drop(armed);
    assert!(!faults.is_armed() && faults.fail_nth(HERE, 1).is_ok());
}

#[test]
fn settings_are_written_as_linux_writes_them() {
    let parse = |text| FaultAttr::parse(FaultSite::PageAlloc, text);
    let off = FaultAttr::off(FaultSite::PageAlloc);
    let tenth = Probability::per_mille(100).unwrap();
    let expected = FaultAttr { interval: 2, probability: tenth, space: 4096, times: Some(5), ..off };
    assert_eq!(parse("2,10,4096,5"), Ok(expected));
    assert_eq!(parse("1,100,0,-1"), Ok(FaultAttr { probability: Probability::ALWAYS, ..off }));
    let half_per_cent = FaultAttr { probability: Probability::per_mille(5).unwrap(), ..off };
    assert_eq!(parse("1,0.5,0,-1"), Ok(half_per_cent));
    let all = parse(
        "1,0,0,-1,verbose=2,seed=77,min-order=0,ignore-gfp-wait=0,ignore-gfp-highmem=1,only=KERNEL|ZERO,context=1",
    );
    let expected = FaultAttr {
        verbose: Verbosity::Stack,
        seed: 77,
        min_size: 1,
        ignore: Gfp::HIGHMEM,
        only: Gfp::KERNEL | Gfp::ZERO,
        context: Some(FaultContext::new(1)),
        ..off
    };
    assert_eq!(all, Ok(expected));
    assert_eq!(parse("1,0,0,-1,ignore=").map(|attr| attr.ignore), Ok(Gfp::empty()));
}

#[test]
fn settings_that_are_none_are_named() {
    let parse = |text| FaultAttr::parse(FaultSite::Slab, text).unwrap_err();
    for short in ["", ",", "1", "1,2", "1,2,3", "1,2,3,", "1,,3,4", ",,,"] {
        assert_eq!(parse(short), FaultArgError::TooFew, "{short:?}");
    }
    for (text, part) in [
        ("-1,100,0,1", "-1"),
        ("1,101,0,1", "101"),
        ("1,100.1,0,1", "100.1"),
        ("1,1.25,0,1", "1.25"),
        ("1,1.,0,1", "1."),
        ("1,99999999999,0,1", "99999999999"),
        ("1,500000000,0,1", "500000000"),
        ("1,1,-1,1", "-1"),
        ("1,1,0,-2", "-2"),
        ("0x1,1,0,1", "0x1"),
        ("1,1,0,1,verbose=3", "3"),
        ("1,1,0,1,min-order=11", "11"),
        ("1,1,0,1,min-order=256", "256"),
        ("1,1,0,1,ignore-gfp-wait=2", "2"),
        ("1,1,0,1,only=KERNEL|LARGE", "LARGE"),
        ("1,1,0,1,only=|", ""),
        ("1,1,0,1,context=4294967295", "4294967295"),
    ] {
        assert_eq!(parse(text), FaultArgError::Value(part), "{text}");
    }
    for (text, part) in [("1,1,0,1,2", "2"), ("1,1,0,1,", ""), ("1,1,0,1,task-filter=1", "task-filter=1")] {
        assert_eq!(parse(text), FaultArgError::Unknown(part), "{text}");
    }
}

fn any_attr() -> impl Strategy<Value = FaultAttr> {
    let numbers = (any::<u32>(), 0..=1000_u32, any::<u64>(), prop::option::of(any::<u32>()), any::<u64>());
    let verbose = prop::sample::select(vec![Verbosity::Silent, Verbosity::Line, Verbosity::Stack]);
    let rest = (verbose, 0..=10_u32, any::<u32>(), any::<u32>(), prop::option::of(0..u32::MAX));
    (numbers, rest).prop_map(|((interval, chance, space, times, seed), (verbose, order, ignore, only, context))| {
        FaultAttr {
            interval,
            probability: Probability::per_mille(chance).unwrap(),
            space,
            times: times.filter(|times| *times != u32::MAX),
            seed,
            verbose,
            min_size: 1 << order,
            ignore: Gfp::from_bits_truncate(ignore),
            only: Gfp::from_bits_truncate(only),
            context: context.map(FaultContext::new),
        }
    })
}

/// Settings that are often good.
const WRITTEN: &str = "([0-9]{1,3},){2}[0-9]{1,3},(-1|[0-9])(,[-a-zA-Z]{2,6}=[0-9A-Z|]{0,4})?[-0-9a-z,.=| ]{0,4}";

proptest! {
    #[test]
    fn what_is_shown_can_be_typed_again(attr in any_attr()) {
        for site in FaultSite::ALL {
            let text = attr.to_string();
            prop_assert_eq!(FaultAttr::parse(site, &text), Ok(attr), "{}", text);
            let faults = FaultInjector::default();
            faults.configure(site, &attr);
            prop_assert_eq!(faults.attr(site), attr);
            prop_assert_eq!(faults.is_armed(), attr.probability != Probability::NEVER);
        }
    }

    #[test]
    fn any_text_is_refused_or_read(text in WRITTEN) {
        for site in FaultSite::ALL {
            if let Ok(attr) = FaultAttr::parse(site, &text) {
                let shown = attr.to_string();
                prop_assert_eq!(FaultAttr::parse(site, &shown), Ok(attr));
            }
        }
    }
}

#[test]
fn sites_have_names() {
    for site in FaultSite::ALL {
        assert_eq!(FaultSite::from_name(site.name()), Some(site));
    }
    assert_eq!(FaultSite::from_name("fail"), None);
    let report = FaultInjector::default().report().to_string();
    assert_eq!(report.lines().count(), FaultSite::ALL.len());
    assert!(FaultSite::ALL.into_iter().zip(report.lines()).all(|(site, line)| line.starts_with(site.name())));
}

/// Objects that an operation has, and an invariant that can be broken.
#[derive(Default)]
struct Toy {
    faults: FaultInjector,
    live: Cell<u32>,
    broken: Cell<bool>,
    careful: Cell<bool>,
}

impl FaultTarget for Toy {
    type Counts = u32;
    type Broken = &'static str;

    fn injector(&self) -> &FaultInjector {
        &self.faults
    }

    fn context(&self) -> FaultContext {
        HERE
    }

    fn set_careful(&self, careful: bool) {
        self.careful.set(careful);
    }

    fn counts(&self) -> u32 {
        self.live.get()
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.broken.get() { Err("TOY-1") } else { Ok(()) }
    }
}

impl Toy {
    fn take(&self) -> Result<(), ()> {
        if self.careful.get() && self.faults.should_fail(FaultSite::Slab, request(Gfp::KERNEL, 1)) {
            return Err(());
        }
        self.live.set(self.live.get() + 1);
        Ok(())
    }

    fn give(&self, number: u32) {
        self.live.set(self.live.get() - number);
    }

    /// Takes three, and gives back what it has if one of them fails.
    fn three(&self) -> Result<(), u32> {
        (0..3).try_for_each(|index| self.take().map_err(|()| self.give(index)).map_err(|()| index))
    }
}

// Behaviour 497: the driver itself, on what it must find.
#[test]
fn the_driver_finds_what_is_wrong() {
    let sound = Toy::default();
    let rounds = fail_every(&sound, MayRecover::No, || sound.three(), |()| sound.give(3));
    assert_eq!(rounds, Ok(Rounds { points: 3, recovered: 0 }));
    assert!(!sound.careful.get() && !sound.faults.is_armed());

    // Forgets what it had when the second fails.
    let toy = Toy::default();
    let leaky = || toy.take().and_then(|()| toy.take());
    let found = fail_every(&toy, MayRecover::No, leaky, |()| toy.give(2));
    assert_eq!(found, Err(FaultFinding::Leaks { call: 2, before: 0, after: 1 }));

    // Goes on as if nothing had happened.
    let toy = Toy::default();
    let deaf = || -> Result<u32, ()> { Ok((0..3).map(|_| u32::from(toy.take().is_ok())).sum()) };
    let found = fail_every(&toy, MayRecover::No, deaf, |had| toy.give(had));
    assert_eq!(found, Err(FaultFinding::Swallowed { call: 1 }));
    let found = fail_every(&toy, MayRecover::Yes, deaf, |had| toy.give(had));
    assert_eq!(found, Ok(Rounds { points: 3, recovered: 3 }));

    // Never works again once it has failed.
    let toy = Toy::default();
    let dead = Cell::new(false);
    let sulky = || if dead.get() { Err(9) } else { toy.three().inspect_err(|_| dead.set(true)) };
    let found = fail_every(&toy, MayRecover::No, sulky, |()| toy.give(3));
    assert_eq!(found, Err(FaultFinding::FailsByItself { call: 1, error: 9 }));

    // Leaves a broken invariant behind when the third fails.
    let toy = Toy::default();
    let clumsy = || toy.three().inspect_err(|index| toy.broken.set(*index == 2));
    let found = fail_every(&toy, MayRecover::No, clumsy, |()| toy.give(3));
    assert_eq!(found, Err(FaultFinding::Breaks { call: 3, broken: "TOY-1" }));

    // Loses something when nothing fails.
    let toy = Toy::default();
    let found = fail_every(&toy, MayRecover::No, || toy.three(), |()| toy.give(2));
    assert_eq!(found, Err(FaultFinding::Leaks { call: 1, before: 0, after: 1 }));

    // Is counted already.
    let toy = Toy::default();
    let _armed = toy.faults.fail_nth(HERE, 1000).unwrap();
    let found = fail_every(&toy, MayRecover::No, || toy.three(), |()| toy.give(3));
    assert_eq!(found, Err(FaultFinding::Busy));
}
