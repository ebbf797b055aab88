//! What a plan takes from the runs before it, and that it does not read them all.

use regraft::migration::Migrations;
use regraft::migration::apply::ApplyOptions;
use regraft::progress::Run;
use regraft::store::block_on;

use crate::migration::{applied, config, data_set, open, planned, sample_file};
use crate::store::memory;

#[test]
fn the_rate_is_that_of_a_former_run_and_is_found_in_few_requests() {
    block_on(async {
        let store = memory();
        data_set(&store, 12).await;
        let set = open(&store, config(""));
        assert_eq!(planned(&set).await.totals.rate_from, "assumed");
        let measured = applied(&set).await.run;
        // Runs of one object each tell little.
        for number in 0..8 {
            store.put("more.parquet", sample_file(100 + number, 1, 5, &[])).await.expect("put");
            assert_eq!(applied(&set).await.outcome, "done");
        }
        let (rate_from, few) = rate_and_requests(&set).await;
        assert_eq!(rate_from, measured);
        for number in 0..40 {
            store.put("more.parquet", sample_file(200 + number, 1, 5, &[])).await.expect("put");
            assert_eq!(applied(&set).await.outcome, "done");
        }
        let (rate_from, many) = rate_and_requests(&set).await;
        assert_eq!(rate_from, "assumed", "the run is long ago");
        assert!(many <= few + 8, "{many} requests after 49 runs, {few} after 9");
        store.put("more.parquet", sample_file(300, 1, 5, &[])).await.expect("put");
        let plan = planned(&set).await;
        let before = set.data().counters().usage();
        set.apply(&plan, &ApplyOptions::default(), &Run::default()).await.expect("applied");
        let gets = (set.data().counters().usage() - before).get;
        assert!(gets <= 4, "{gets} requests for one object after 49 runs");
    });
}

async fn rate_and_requests(set: &Migrations) -> (String, u64) {
    let before = set.data().counters().usage();
    let plan = planned(set).await;
    (plan.totals.rate_from, (set.data().counters().usage() - before).get)
}
