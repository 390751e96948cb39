//! Random operations on a row, against `Vec`.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Op {
    Push(u32),
    Pop,
    Insert(usize, u32),
    Remove(usize),
    SwapRemove(usize),
    Truncate(usize),
    Reserve(usize),
    Shrink,
    Extend(Vec<u32>),
    Resize(usize, u32),
    Retain(u32),
    IntoIter(usize, usize),
    Boxed,
    /// The next so many allocations succeed, and then none for one operation.
    Fail(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => any::<u32>().prop_map(Op::Push),
        2 => Just(Op::Pop),
        2 => (0..20_usize, any::<u32>()).prop_map(|(index, value)| Op::Insert(index, value)),
        2 => (0..20_usize).prop_map(Op::Remove),
        1 => (0..20_usize).prop_map(Op::SwapRemove),
        1 => (0..20_usize).prop_map(Op::Truncate),
        1 => (0..40_usize).prop_map(Op::Reserve),
        1 => Just(Op::Shrink),
        1 => proptest::collection::vec(any::<u32>(), 0..9).prop_map(Op::Extend),
        1 => (0..24_usize, any::<u32>()).prop_map(|(len, value)| Op::Resize(len, value)),
        1 => (1..5_u32).prop_map(Op::Retain),
        1 => (0..9_usize, 0..9_usize).prop_map(|(front, back)| Op::IntoIter(front, back)),
        1 => Just(Op::Boxed),
        1 => (0..2_usize).prop_map(Op::Fail),
    ]
}

// Values with memory of their own, so that one that is lost or dropped twice is noticed.
type Value = Box<u32>;

fn run(ops: Vec<Op>) {
    Ledger::run(|ledger| {
        let mut row: KVec<Value, Audited<'_>> = KVec::new_in(Audited(ledger));
        let mut model: Vec<Value> = Vec::new();
        for op in ops {
            let mut fails = false;
            match op {
                Op::Push(value) => {
                    let pushed = row.push(Box::new(value), KERNEL);
                    let value = Box::new(value);
                    match pushed {
                        Ok(()) => model.push(value),
                        Err(refused) => assert_eq!(refused.value, value),
                    }
                }
                Op::Pop => assert_eq!(row.pop(), model.pop()),
                Op::Insert(index, value) => match row.insert(index, Box::new(value), KERNEL) {
                    Ok(()) => model.insert(index, Box::new(value)),
                    Err(refused) => assert_eq!(*refused.value, value),
                },
                Op::Remove(index) => {
                    assert_eq!(row.remove(index), (index < model.len()).then(|| model.remove(index)));
                }
                Op::SwapRemove(index) => {
                    assert_eq!(row.swap_remove(index), (index < model.len()).then(|| model.swap_remove(index)));
                }
                Op::Truncate(len) => {
                    row.truncate(len);
                    model.truncate(len);
                }
                Op::Reserve(more) => {
                    if row.reserve(more, KERNEL).is_ok() {
                        assert!(row.capacity() >= row.len() + more);
                    }
                }
                Op::Shrink => {
                    if row.shrink_to_fit(KERNEL).is_ok() {
                        assert_eq!(row.capacity(), row.len());
                    }
                }
                Op::Extend(values) => {
                    let values: Vec<Value> = values.into_iter().map(Box::new).collect();
                    if row.extend_from_slice(&values, KERNEL).is_ok() {
                        model.extend(values);
                    }
                }
                Op::Resize(len, value) => {
                    if row.resize(len, Box::new(value), KERNEL).is_ok() {
                        model.resize(len, Box::new(value));
                    }
                }
                Op::Retain(divisor) => {
                    row.retain(|value| !value.is_multiple_of(divisor));
                    model.retain(|value| !value.is_multiple_of(divisor));
                }
                Op::IntoIter(front, back) => {
                    let mut taken = std::mem::replace(&mut row, KVec::new_in(Audited(ledger))).into_iter();
                    let mut expected = std::mem::take(&mut model).into_iter();
                    for _ in 0..front {
                        assert_eq!(taken.next(), expected.next());
                    }
                    for _ in 0..back {
                        assert_eq!(taken.next_back(), expected.next_back());
                    }
                    assert_eq!((taken.as_slice(), taken.len()), (expected.as_slice(), expected.len()));
                }
                Op::Boxed => {
                    let given = std::mem::replace(&mut row, KVec::new_in(Audited(ledger)));
                    row = match given.into_boxed_slice(KERNEL) {
                        Ok(slice) => KVec::from_boxed_slice(slice),
                        Err(refused) => refused.value,
                    };
                }
                Op::Fail(left) => {
                    ledger.fail_after(left);
                    fails = true;
                }
            }
            if !fails {
                ledger.never_fail();
            }
            assert_eq!(row.as_slice(), model);
            assert!(row.capacity() >= row.len());
        }
    });
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if cfg!(miri) { 8 } else { 256 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn a_row_does_what_a_vec_does(ops in proptest::collection::vec(op(), 1..80)) {
        run(ops);
    }
}
