"""The same inputs for every bench and every peer: made days of the size of a national sea surface temperature grid.

2250 × 3000 cells, four variables (int16 packed, int16, int8, float32): 60.8 MB a day, some 20 MB as NetCDF-4 with
deflate 4 and shuffle. The fields are smooth with a little noise, so that they compress as real ones
do; they are seeded.
"""

from __future__ import annotations

from pathlib import Path

import h5py
import netCDF4
import numpy as np

FULL = (2250, 3000)
QUICK = (450, 600)
VARIABLES = ("sea_surface_temperature", "sst_dtime", "quality_level", "wind_speed")
FILLS = {"sea_surface_temperature": -32768, "sst_dtime": -32768, "quality_level": -128, "wind_speed": -999.0}
KINDS = {"sea_surface_temperature": "i2", "sst_dtime": "i2", "quality_level": "i1", "wind_speed": "f4"}
PACKING = {"sea_surface_temperature": {"scale_factor": 0.01, "add_offset": 273.15}}
FIRST_DAY = 15000
"""Days since 1981-01-01 of day 0."""


def fields(day: int, shape: tuple[int, int], version: int = 0) -> dict[str, np.ndarray]:
    """Raw values of one day, as they are packed; another version differs everywhere that is not missing."""
    generator = np.random.default_rng([day, version])
    rows, columns = (np.linspace(0, 1, length, dtype=np.float32) for length in shape)
    north, east = rows[:, None], columns[None, :]
    wave = np.zeros(shape, dtype=np.float32)
    for _ in range(8):
        steepness, phase = generator.normal(0, 9, 2).astype(np.float32), np.float32(generator.uniform(0, 6.28))
        wave += np.sin(steepness[0] * north + steepness[1] * east + phase)
    noise = generator.integers(-9, 10, shape, dtype=np.int16)
    missing = wave > 1.4
    temperature = (2600 - 2000 * north + 120 * wave + version).astype(np.int16) + noise
    elapsed = (900 * east + 40 * wave).astype(np.int16) + (noise // 3)
    quality = np.clip(4 - wave + noise // 5, 1, 5).astype(np.int8)
    wind = (np.rint((8 + 3 * wave + 0.04 * noise) * 32) / 32).astype(np.float32)
    made = dict(zip(VARIABLES, (temperature, elapsed, quality, wind), strict=True))
    return {name: np.where(missing, np.asarray(FILLS[name], values.dtype), values) for name, values in made.items()}


def file_name(day: int) -> str:
    return f"day-{day:05d}.nc"


def write_day(path: Path, day: int, shape: tuple[int, int], version: int = 0) -> Path:
    """One NetCDF-4 file, chunked in thirds of the grid as GHRSST files are."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    cut = (1, -(-shape[0] // 3), -(-shape[1] // 3))
    with netCDF4.Dataset(partial, "w") as file:
        for name, size in (("time", None), ("lat", shape[0]), ("lon", shape[1])):
            file.createDimension(name, size)
        time = file.createVariable("time", "i4", ("time",))
        time.units = "days since 1981-01-01"
        time[:] = [FIRST_DAY + day]
        file.createVariable("lat", "f4", ("lat",))[:] = np.linspace(20, -70, shape[0], dtype=np.float32)
        file.createVariable("lon", "f4", ("lon",))[:] = np.linspace(70, 190, shape[1], dtype=np.float32)
        for name, values in fields(day, shape, version).items():
            variable = file.createVariable(
                name,
                KINDS[name],
                ("time", "lat", "lon"),
                fill_value=FILLS[name],
                compression="zlib",
                complevel=4,
                shuffle=True,
                chunksizes=cut,
            )
            variable.set_auto_maskandscale(False)
            variable.setncatts(PACKING.get(name, {}))
            variable[0] = values
    partial.rename(path)
    return path


def read_raw(path: Path) -> dict[str, np.ndarray]:
    """The values of a file as they are stored."""
    with netCDF4.Dataset(path) as file:
        file.set_auto_maskandscale(False)
        return {name: file[name][:] for name in VARIABLES}


def read_encoded(path: Path) -> list[bytes]:
    """The chunks of a file as they lie on the disk: shuffled and deflated."""
    with h5py.File(path) as file:
        chunks = [(file[name].id, number) for name in VARIABLES for number in range(file[name].id.get_num_chunks())]
        return [array.read_direct_chunk(array.get_chunk_info(number).chunk_offset)[1] for array, number in chunks]
