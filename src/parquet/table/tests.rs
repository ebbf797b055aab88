use proptest::prelude::*;

use super::*;
use crate::store::block_on;

fn store() -> Store {
    Store::open(&format!("memory://tables-{}", crate::store::random_id()), &crate::store::StorageOptions::new())
        .unwrap()
}

fn table(keys: &[String]) -> Table {
    let text = |at: usize| (!at.is_multiple_of(3)).then(|| format!("etag {at}"));
    Table {
        columns: vec![
            ("etag".to_owned(), Column::Text((0..keys.len()).map(text).collect())),
            ("key".to_owned(), Column::Text(keys.iter().cloned().map(Some).collect())),
            ("size".to_owned(), Column::Integer((0..keys.len()).map(|at| Some(at as i64)).collect())),
            ("share".to_owned(), Column::Float((0..keys.len()).map(|at| (at % 2 == 0).then_some(at as f64)).collect())),
            (
                "gone".to_owned(),
                Column::Boolean((0..keys.len()).map(|at| (at % 4 != 1).then_some(at % 2 == 0)).collect()),
            ),
            (
                "labels".to_owned(),
                Column::Texts(
                    (0..keys.len())
                        .map(|at| (at % 5 != 4).then(|| (0..at % 3).map(|label| format!("label {label}")).collect()))
                        .collect(),
                ),
            ),
        ],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn a_table_comes_back_and_its_keys_are_found(
        mut keys in prop::collection::vec("[a-zé]{0,6}", 0..400),
        row_group_rows in 1_usize..120,
        wanted in prop::collection::vec("[a-zé]{0,3}", 0..20),
    ) {
        keys.sort();
        let table = table(&keys);
        let store = store();
        let file = write(&table, "key", row_group_rows, &[("regraft:record", "12".to_owned())]).unwrap();
        prop_assert_eq!(&file, &write(&table, "key", row_group_rows, &[("regraft:record", "12".to_owned())]).unwrap());
        block_on(async {
            store.put("t.parquet", file).await.unwrap();
            let opened = TableFile::open(&store, "t.parquet").await.unwrap();
            prop_assert_eq!(opened.all().await.unwrap(), table);
            prop_assert_eq!(opened.rows() as usize, keys.len());
            prop_assert_eq!(opened.key_value("regraft:record"), Some("12"));
            let mut wanted: Vec<String> = wanted.into_iter().chain(keys.iter().step_by(37).cloned()).collect();
            wanted.sort();
            let found = opened.read(&opened.row_groups_with(&wanted)).await.unwrap();
            let Some(Column::Text(found)) = found.column("key") else { panic!() };
            for key in &wanted {
                let count = |keys: &mut dyn Iterator<Item = &String>| keys.filter(|&given| given == key).count();
                prop_assert_eq!(count(&mut found.iter().flatten()), count(&mut keys.iter()));
            }
            Ok(())
        })?;
    }
}

#[test]
fn a_few_row_groups_of_a_large_table_are_a_few_bytes() {
    let keys: Vec<String> = (0..100_000).map(|at| format!("data/2020/file-{at:09}.nc")).collect();
    let store = store();
    block_on(async {
        let file = write(&table(&keys), "key", 4096, &[]).unwrap();
        let size = file.len() as u64;
        store.put("t.parquet", file).await.unwrap();
        let before = store.counters().usage();
        let opened = TableFile::open(&store, "t.parquet").await.unwrap();
        let groups = opened.row_groups_with(&["data/2020/file-000050000.nc"]);
        assert_eq!(groups.len(), 1);
        let found = opened.read(&groups).await.unwrap();
        assert_eq!(found.rows(), 4096);
        let after = store.counters().usage();
        assert_eq!(after.get - before.get, 2);
        assert!(after.bytes_read - before.bytes_read < size / 3, "{} of {size}", after.bytes_read - before.bytes_read);
    });
}

#[test]
fn what_is_no_table_is_refused() {
    let mut unsorted = table(&["b".to_owned(), "a".to_owned()]);
    assert!(write(&unsorted, "key", 10, &[]).is_err());
    unsorted.columns[1].1 = Column::Text(vec![None, Some("a".to_owned())]);
    assert!(write(&unsorted, "key", 10, &[]).is_err());
    assert!(write(&table(&["a".to_owned()]), "size", 10, &[]).is_err());
    let store = store();
    block_on(async {
        for body in [&b""[..], b"PAR1", b"PAR1 nothing of that kind PAR1", &[0xff; 200]] {
            store.put("t.parquet", Bytes::from_static(body)).await.unwrap();
            let error = TableFile::open(&store, "t.parquet").await.unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Corrupt, "{error}");
        }
        let error = TableFile::open(&store, "other.parquet").await.unwrap_err();
        assert_eq!(error.kind(), crate::error::Kind::NotFound);
    });
}
