//! The one integration binary: what needs servers, processes, real files, or several modules at once.

mod lease;
mod ledger;
mod migration;
mod migration_faults;
mod migration_servers;
mod netcdf;
mod parquet_columns;
mod parquet_footer;
mod parquet_layouts;
mod processes;
mod servers;
mod store;
mod store_answers;
mod store_contract;
mod store_faults;
mod store_replace;
mod zarr_metadata;
mod zarr_metadata_crash;
mod zarr_plan;
mod zarr_read;
mod zarr_write;
mod zarr_write_layouts;
mod zarr_write_model;
mod zarr_write_property;
mod zarr_write_timing;
