//! The driver of a GICv3 against a controller in software, with one security state and with two: all CPUs come up, interrupt each
//! other, go and come back; and what never ends is given up after a tenth of a second, whatever the counter does.
#![expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "offsets and numbers of interrupts are small, and in a test a panic is the answer"
)]

mod fake;

use fake::{Clock, FREQUENCY, Fake};
use quarry::driver::gicv3::{self, Gicv3Error};
use quarry::driver::waker::Power;

/// Four CPUs in three regions, of all affinity fields; two have the frames for virtual LPIs.
const REGIONS: [&[(u64, bool)]; 3] =
    [&[(0, true), (0x1, false)], &[(0x0100, true)], &[(0x01_0002_0f00, false), (0x02_0001_000f, false)]];
const CPUS: usize = 5;
/// What a wait may take, in ticks.
const LIMIT: u64 = FREQUENCY / 10;

fn fake(secure: bool) -> Fake {
    Fake::new(secure, &REGIONS)
}

/// A controller on which every CPU takes interrupt 0 from the others.
fn up(secure: bool) -> (Fake, Vec<u64>) {
    let gic = fake(secure);
    gicv3::init(&gic).unwrap();
    let come = |cpu| {
        gic.on(cpu, |gic| {
            let name = gicv3::init_cpu(gic).unwrap();
            gicv3::enable(gic, 0, true).unwrap();
            name
        })
    };
    let names = (0..CPUS).map(come).collect();
    (gic, names)
}

fn taken(gic: &Fake, cpu: usize) -> Option<u32> {
    gic.on(cpu, |gic| gicv3::acknowledge(gic).inspect(|intid| gicv3::end(gic, *intid)))
}

#[test]
fn every_cpu_interrupts_every_cpu_with_one_security_state_and_with_two() {
    for secure in [false, true] {
        let (gic, names) = up(secure);
        for from in 0..CPUS {
            for (to, name) in names.iter().enumerate() {
                gic.unordered.set(true);
                gic.on(from, |gic| gicv3::send(gic, 0, *name));
                let takers: Vec<usize> = (0..CPUS).filter(|cpu| taken(&gic, *cpu) == Some(0)).collect();
                assert_eq!(takers, [to], "from {from}, two states: {secure}");
            }
        }
        assert!((0..CPUS).all(|cpu| taken(&gic, cpu).is_none()), "once each");
    }
}

#[test]
fn a_shared_interrupt_comes_to_the_cpu_that_enabled_it_until_it_is_disabled() {
    for secure in [false, true] {
        let (gic, _) = up(secure);
        gic.raise(77);
        assert!((0..CPUS).all(|cpu| taken(&gic, cpu).is_none()), "it is off");
        assert_eq!(gic.shared(77), (false, false), "and by its level");
        gic.on(3, |gic| gicv3::enable(gic, 77, true)).unwrap();
        assert_eq!(gic.shared(77), (true, true));
        assert_eq!(
            (0..CPUS).filter_map(|cpu| taken(&gic, cpu).map(|intid| (cpu, intid))).collect::<Vec<_>>(),
            [(3, 77)]
        );
        gic.on(1, |gic| gicv3::disable(gic, 77)).unwrap();
        gic.raise(77);
        assert!((0..CPUS).all(|cpu| taken(&gic, cpu).is_none()), "it is off again");
        gic.on(1, |gic| gicv3::enable(gic, 77, false)).unwrap();
        assert_eq!(gic.shared(77), (true, false));
        assert_eq!(taken(&gic, 1), Some(77));
    }
}

// 50 is the secure state's in one of the two machines; both end at 159.
#[test]
fn what_firmware_keeps_and_what_there_is_not_is_refused() {
    let (gic, _) = up(true);
    assert_eq!(gicv3::enable(&gic, 50, false), Err(Gicv3Error::Refused));
    assert_eq!(up(false).0.on(0, |gic| gicv3::enable(gic, 50, false)), Ok(()));
    for intid in [160, 1019, 1020, 5000] {
        assert_eq!(gicv3::enable(&gic, intid, false), Err(Gicv3Error::Refused), "{intid}");
        assert_eq!(gicv3::disable(&gic, intid), Err(Gicv3Error::Refused), "{intid}");
    }
    assert_eq!(gicv3::enable(&gic, 159, false), Ok(()));
}

#[test]
fn a_cpu_that_goes_takes_nothing_and_comes_back() {
    for secure in [false, true] {
        let (gic, names) = up(secure);
        gic.on(2, gicv3::leave_cpu).unwrap();
        // Only one state lets the register be written; with two it is firmware that puts it to sleep.
        assert_eq!(gic.regions.borrow()[1][0].is_asleep, !secure);
        gic.on(0, |gic| gicv3::send(gic, 0, names[2]));
        assert_eq!(taken(&gic, 2), None);
        gic.on(0, |gic| gicv3::send(gic, 0, names[1]));
        assert_eq!(taken(&gic, 1), Some(0), "the others go on");
        let back = gic.on(2, |gic| gicv3::init_cpu(gic).and_then(|name| gicv3::enable(gic, 0, true).map(|()| name)));
        assert_eq!(back, Ok(names[2]));
        assert!(!gic.regions.borrow()[1][0].is_asleep);
        assert_eq!(taken(&gic, 2), Some(0), "what was sent meanwhile");
    }
}

#[test]
fn writes_that_take_their_time_are_waited_for() {
    for secure in [false, true] {
        for slow in [1, 2, 50] {
            let gic = fake(secure);
            gic.slow.set(slow);
            gicv3::init(&gic).unwrap();
            gicv3::init_cpu(&gic).unwrap();
            gicv3::enable(&gic, 40, false).unwrap();
            gicv3::disable(&gic, 40).unwrap();
            // The fake refuses a write before the last has ended.
            gicv3::enable(&gic, 41, false).unwrap();
        }
    }
}

/// Whether `body` gives up with `expected`, and only when its time is over.
fn gives_up<T: PartialEq + std::fmt::Debug>(
    gic: &Fake,
    what: &str,
    expected: impl Fn(Gicv3Error) -> bool,
    body: impl FnOnce(&Fake) -> Result<T, Gicv3Error>,
) {
    let (start, looks) = (gic.now.get(), gic.looks.get());
    let said = body(gic);
    assert!(said.as_ref().err().copied().is_some_and(expected), "{what}: {said:?}");
    let (passed, looked) = (gic.now.get().wrapping_sub(start), gic.looks.get() - looks);
    match gic.clock.get() {
        Clock::Steps(step) => assert!((LIMIT..LIMIT + 4 * step).contains(&passed), "{what}: {passed} ticks"),
        // A counter that does not go on: so many looks for each tick.
        Clock::Still | Clock::Back(_) => assert!((LIMIT..100 * LIMIT).contains(&looked), "{what}: {looked} looks"),
    }
}

#[test]
fn every_wait_for_a_write_that_never_ends_is_given_up_in_time() {
    let is_pending = |error| matches!(error, Gicv3Error::Pending(register) if register & (1 << 31 | 1 << 3) != 0);
    for secure in [false, true] {
        for clock in [Clock::Steps(1), Clock::Steps(100), Clock::Still, Clock::Back(3)] {
            let all = fake(secure);
            gicv3::init(&all).unwrap();
            let in_init = all.waits.get();
            assert!(in_init > 4);
            for number in 0..in_init {
                let gic = fake(secure);
                gic.hangs_at.set(Some(number));
                gic.clock.set(clock);
                gives_up(&gic, &format!("init, write {number}"), is_pending, gicv3::init);
            }
            let gic = fake(secure);
            gic.hangs_at.set(Some(in_init));
            gicv3::init(&gic).unwrap();
            gic.clock.set(clock);
            gives_up(&gic, "init_cpu", is_pending, gicv3::init_cpu);
            for (what, intid) in [("a shared one", 40), ("a private one", 27)] {
                let (gic, _) = up(secure);
                gic.on(0, |gic| gicv3::enable(gic, intid, false)).unwrap();
                gic.hangs_at.set(Some(gic.waits.get()));
                gic.clock.set(clock);
                gives_up(&gic, what, is_pending, |gic| gicv3::disable(gic, intid));
            }
        }
    }
}

#[test]
fn a_redistributor_that_never_follows_is_given_up_in_time() {
    for clock in [Clock::Steps(1), Clock::Still, Clock::Back(1 << 40)] {
        let gic = fake(false);
        gicv3::init(&gic).unwrap();
        gic.follows.set(false);
        gic.clock.set(clock);
        let is = |wanted| move |error| matches!(error, Gicv3Error::Asleep(found) if found.wanted == wanted);
        gives_up(&gic, "wake", is(Power::Awake), gicv3::init_cpu);
        let (gic, _) = up(false);
        gic.follows.set(false);
        gic.clock.set(clock);
        gives_up(&gic, "sleep", is(Power::Asleep), |gic| gic.on(4, gicv3::leave_cpu));
        // With two states the register is firmware's, and nothing is waited for.
        let (gic, _) = up(true);
        gic.follows.set(false);
        let looks = gic.looks.get();
        assert_eq!(gic.on(4, gicv3::leave_cpu), Ok(()));
        assert!(gic.looks.get() - looks <= 1, "it did wait");
    }
}

#[test]
fn a_cpu_that_cannot_be_served_is_named() {
    let missing = Fake::new(false, &[&[(0, false)], &[]]);
    gicv3::init(&missing).unwrap();
    missing.regions.borrow_mut()[0].clear();
    assert_eq!(gicv3::init_cpu(&missing), Err(Gicv3Error::NoRedistributor));
    let far = Fake::new(true, &[&[(0x10, false)]]);
    gicv3::init(&far).unwrap();
    assert_eq!(gicv3::init_cpu(&far), Err(Gicv3Error::Unreachable(0x10)));
    let locked = fake(true);
    locked.locked.set(true);
    gicv3::init(&locked).unwrap();
    assert_eq!(gicv3::init_cpu(&locked), Err(Gicv3Error::NoCpuInterface));
    assert!(Gicv3Error::NoCpuInterface.to_string().contains("ICC_SRE_EL1.SRE"));
}
