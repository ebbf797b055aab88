//! The one integration binary: a module for every area.

mod netcdf;
