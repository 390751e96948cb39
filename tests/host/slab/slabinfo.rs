//! `slabinfo`, field by field, as the tools that read Linux's `/proc/slabinfo` do.

use super::*;
use quarry::mm::slab::CacheSpec;

/// A line: the name and the numbers of its four groups.
fn parse(line: &str) -> (String, Vec<Vec<u64>>) {
    let mut groups = line.split(" : ");
    let mut first = groups.next().unwrap().split_whitespace();
    let name = first.next().unwrap().to_owned();
    let mut numbers = vec![first.map(|field| field.parse().unwrap()).collect()];
    for (group, title) in groups.zip(["tunables", "slabdata", "cpustat"]) {
        let mut fields = group.split_whitespace();
        assert_eq!(fields.next(), Some(title), "{line}");
        numbers.push(fields.map(|field| field.parse().unwrap()).collect());
    }
    (name, numbers)
}

#[test]
fn every_field_is_linuxs() {
    Spec::of_size(32 << 20).run(|slabs| {
        let cache = slabs.create(&CacheSpec { align: 64, ..spec("test", 200) }).unwrap();
        let objects = take(slabs, cache.cache(), 77);
        let text = slabs.slabinfo().to_string();
        let mut lines = text.lines();
        // procps' slabtop and Linux's own tools look at the number alone.
        assert!(lines.next().unwrap().starts_with("slabinfo - version: 2.1"));
        let titles = lines.next().unwrap();
        assert!(titles.starts_with(
            "# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> \
             <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>"
        ));
        let rows: Vec<_> = lines.map(parse).collect();
        let mut caches = 0;
        slabs.for_each(|_| caches += 1).unwrap();
        assert_eq!(rows.len(), caches);
        let mut pages = 0;
        for (name, groups) in &rows {
            assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [5, 3, 3, 4], "{name}");
            let [active, objects, size, per_slab, pages_per_slab] = groups[0][..] else { unreachable!() };
            assert!(active <= objects && per_slab * size <= pages_per_slab * 4096, "{name}");
            let [active_slabs, slabs, at_hand] = groups[2][..] else { unreachable!() };
            assert!(active_slabs <= slabs && objects <= slabs * per_slab && active + at_hand <= objects, "{name}");
            pages += slabs * pages_per_slab;
        }
        let (_, groups) = rows.iter().find(|(name, _)| name == "test").unwrap();
        let info = slabs.info(cache.cache());
        assert_eq!(groups[0][..3], [77, info.objects, 256]);
        assert_eq!(groups[0][3..], [info.objects / info.slabs, slabs.info(cache.cache()).pages / info.slabs]);
        assert_eq!(groups[2], [info.slabs, info.slabs, info.at_hand]);
        assert_eq!(groups[3][0] + groups[3][1], 77, "every allocation took one of the two ways");
        let mut counted = 0;
        slabs.for_each(|cache| counted += slabs.info(cache).pages).unwrap();
        assert_eq!(pages, counted, "with no slab smaller than preferred");
        give(slabs, cache.cache(), objects);
        slabs.destroy(cache).unwrap();
    });
}
