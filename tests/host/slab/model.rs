//! Random operations against a model: which objects there are, and what each holds.

use super::*;
use machine::run_on;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Alloc { size: usize, zero: bool },
    Free(usize),
    Resize(usize, usize),
    FreeAgain,
    FreeInside(usize, u64),
    Cpu(u32),
    Shrink,
}

fn op() -> impl Strategy<Value = Op> {
    let size = prop_oneof![8 => 1..300_usize, 3 => 1..9000_usize, 1 => 1..70_000_usize];
    prop_oneof![
        10 => (size.clone(), any::<bool>()).prop_map(|(size, zero)| Op::Alloc { size, zero }),
        8 => any::<usize>().prop_map(Op::Free),
        2 => (any::<usize>(), size).prop_map(|(index, size)| Op::Resize(index, size)),
        1 => Just(Op::FreeAgain),
        1 => (any::<usize>(), 1..64_u64).prop_map(|(index, bytes)| Op::FreeInside(index, bytes)),
        1 => (0..3_u32).prop_map(Op::Cpu),
        1 => Just(Op::Shrink),
    ]
}

struct Live {
    at: VirtAddr,
    size: usize,
    byte: u8,
}

impl Live {
    fn is_intact(&self) -> bool {
        holds(self.at, self.byte, self.size)
    }
}

fn run(spec: Spec, ops: &[Op]) {
    spec.exchanging().run(|slabs| {
        let mut live: Vec<Live> = Vec::new();
        let mut last = None;
        for (byte, op) in (1..=u8::MAX).cycle().zip(ops) {
            let pick = |index: usize, live: &[Live]| (!live.is_empty()).then(|| index % live.len());
            match *op {
                Op::Alloc { size, zero } => {
                    let gfp = if zero { KERNEL | Gfp::ZERO } else { KERNEL };
                    let at = slabs.kmalloc(size, gfp).unwrap();
                    assert!(!zero || holds(at, 0, size));
                    let apart = |other: &Live| {
                        at.get() + size as u64 <= other.at.get() || other.at.get() + other.size as u64 <= at.get()
                    };
                    assert!(live.iter().all(apart), "two allocations share a byte");
                    fill(at, byte, size);
                    live.push(Live { at, size, byte });
                    last = None;
                }
                Op::Free(index) => {
                    let Some(index) = pick(index, &live) else { continue };
                    let gone = live.swap_remove(index);
                    assert!(gone.is_intact());
                    raw!(slabs.kfree(gone.at)).unwrap();
                    last = Some(gone.at);
                }
                Op::Resize(index, size) => {
                    let Some(index) = pick(index, &live) else { continue };
                    let one = &mut live[index];
                    let kept = one.size.min(size);
                    one.at = raw!(slabs.krealloc(one.at, size, KERNEL)).unwrap();
                    assert!(holds(one.at, one.byte, kept));
                    fill(one.at, one.byte, size);
                    one.size = size;
                    last = None;
                }
                Op::FreeAgain => {
                    if let Some(at) = last {
                        assert!(raw!(slabs.kfree(at)).is_err());
                    }
                }
                Op::FreeInside(index, bytes) => {
                    let Some(index) = pick(index, &live) else { continue };
                    let one = &live[index];
                    if bytes < one.size as u64 {
                        assert!(raw!(slabs.kfree(offset(one.at, bytes))).is_err());
                        assert!(one.is_intact());
                    }
                }
                Op::Cpu(cpu) => run_on(cpu),
                Op::Shrink => {
                    slabs.shrink_all();
                    last = None;
                }
            }
        }
        run_on(0);
        check(slabs);
        for one in live {
            assert!(one.is_intact());
            raw!(slabs.kfree(one.at)).unwrap();
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 24 }, ..ProptestConfig::default() })]

    // Behaviour 217.
    #[test]
    fn no_two_allocations_share_a_byte(ops in proptest::collection::vec(op(), 1..if cfg!(miri) { 100 } else { 300 })) {
        run(Spec::of_size(32 << 20).cpus(3), &ops);
    }

    // The same as a thread that moves to another CPU wherever it can.
    #[test]
    fn no_two_allocations_share_a_byte_whatever_cpu_a_thread_is_moved_to(
        ops in proptest::collection::vec(op(), 1..if cfg!(miri) { 100 } else { 300 }),
    ) {
        run(Spec::of_size(32 << 20).cpus(3).migrating(), &ops);
    }
}
