//! NetCDF reading (to be written).
