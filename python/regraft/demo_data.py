"""The made files of the demo, the notebook and some tests: a week of satellite days and a few float profiles.

They look like the real ones from the outside (names, dimensions, packing, attributes, compression), so that what works
on them is not a toy: sea surface temperature as GHRSST L3S publishes it, NetCDF-4 with int16 packed in chunks, and Argo
profiles as classic CDF-1 with char arrays. From the inside they are smooth formulas over a hand-drawn coast, seeded:
the same day is the same field everywhere, and nothing is downloaded.
"""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["FIRST_DAY", "SstGrid", "day_name", "write_profile", "write_sst_day"]

FIRST_DAY = dt.date(2022, 1, 1)
EPOCH = dt.date(1981, 1, 1)
FILL_INT16 = -32768
FILL_INT8 = -128

# Longitude and latitude in degrees, drawn by hand: good enough to be recognised, too coarse to sail by.
_MAINLAND = (
    (142.5, -10.7), (143.6, -14.2), (145.3, -15.0), (145.9, -17.0), (146.4, -19.0), (148.8, -20.5), (150.8, -23.3),
    (152.9, -25.3), (153.5, -28.0), (153.0, -31.0), (151.3, -33.8), (150.1, -36.5), (149.9, -37.6), (147.5, -38.0),
    (146.3, -39.0), (144.6, -38.2), (143.5, -38.8), (141.0, -38.2), (139.7, -37.0), (138.9, -35.5), (138.1, -35.6),
    (138.4, -34.5), (137.8, -33.0), (137.0, -34.8), (136.0, -34.9), (135.5, -34.5), (134.2, -32.9), (131.2, -31.5),
    (128.0, -32.0), (125.8, -32.5), (123.8, -33.9), (121.0, -33.9), (118.0, -35.0), (115.1, -34.3), (115.7, -32.0),
    (114.8, -29.5), (113.6, -26.5), (113.4, -24.3), (114.1, -21.9), (116.7, -20.6), (119.0, -20.0), (121.3, -19.4),
    (122.2, -18.0), (122.7, -16.8), (123.8, -16.9), (124.4, -15.8), (126.0, -14.2), (127.5, -14.2), (128.2, -15.0),
    (129.6, -14.9), (130.8, -12.6), (132.6, -11.6), (135.0, -12.2), (136.8, -12.2), (136.0, -13.5), (135.6, -14.9),
    (137.5, -16.1), (139.3, -17.4), (140.8, -17.5), (141.6, -15.0), (141.7, -12.8),
)  # fmt: skip
_TASMANIA = (
    (144.7, -40.8), (146.5, -41.1), (148.2, -40.9), (148.3, -42.2), (147.2, -43.5), (146.0, -43.4), (145.3, -42.3),
)  # fmt: skip


class SstGrid:
    """The grid of the made satellite days.

    Args:
        rows: Cells from north (10° S) to south (46° S).
        columns: Cells from west (110° E) to east (158° E).
    """

    def __init__(self, rows: int = 180, columns: int = 240) -> None:
        self.lat: NDArray[np.float32] = np.linspace(-10.1, -45.9, rows, dtype=np.float32)
        self.lon: NDArray[np.float32] = np.linspace(110.1, 157.9, columns, dtype=np.float32)
        longitude, latitude = np.meshgrid(self.lon.astype(np.float64), self.lat.astype(np.float64))
        self._longitude, self._latitude = longitude, latitude
        self.land: NDArray[np.bool_] = _inside(_MAINLAND, longitude, latitude) | _inside(_TASMANIA, longitude, latitude)

    def temperature(self, day: int) -> NDArray[np.float64]:
        """Sea surface temperature of one day in kelvin, without clouds and without land.

        Args:
            day: Days since `FIRST_DAY`.

        Returns:
            Shape (rows, columns): warm in the north, a warm current down the east coast, eddies that drift west.
        """
        longitude, latitude = self._longitude, self._latitude
        field = 302.5 - 0.016 * (latitude + 10.0) ** 2 + 0.03 * day
        current = np.exp(-(((longitude - 154.0 - 0.03 * (latitude + 28.0) ** 2) / 2.2) ** 2))
        field += 2.4 * current * np.exp(-(((latitude + 32.0) / 7.0) ** 2))
        generator = np.random.default_rng(20220101)
        for _ in range(14):
            wave_east, wave_north = generator.normal(0.0, 0.8, 2)
            phase, size = generator.uniform(0.0, 2 * np.pi), generator.uniform(0.1, 0.4)
            field += size * np.sin(wave_east * (longitude + 0.35 * day) + wave_north * latitude + phase)
        return field

    def clouds(self, day: int, cover: float) -> NDArray[np.float64]:
        """How far each cell is under cloud: below 0 it is clear.

        Args:
            day: Days since `FIRST_DAY`; each has clouds of its own.
            cover: Share of the cells that are hidden.

        Returns:
            Shape (rows, columns).
        """
        generator = np.random.default_rng([7, day])
        field = np.zeros_like(self._longitude)
        for _ in range(18):
            wave_east, wave_north = generator.normal(0.0, 0.55, 2)
            phase = generator.uniform(0.0, 2 * np.pi)
            field += np.sin(wave_east * self._longitude + wave_north * self._latitude + phase)
        return field - np.quantile(field, 1.0 - cover)


def _inside(
    outline: tuple[tuple[float, float], ...], longitude: NDArray[np.float64], latitude: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which points lie inside an outline: each edge that a ray to the west crosses flips the answer."""
    inside = np.zeros(longitude.shape, dtype=bool)
    for (x1, y1), (x2, y2) in zip(outline, outline[1:] + outline[:1], strict=True):
        crosses = (y1 > latitude) != (y2 > latitude)
        with np.errstate(divide="ignore", invalid="ignore"):
            inside ^= crosses & (longitude < (x2 - x1) * (latitude - y1) / np.float64(y2 - y1) + x1)
    return inside


def day_name(day: int, version: int = 1) -> str:
    """The file name of a day, as GHRSST names its files."""
    return f"{FIRST_DAY + dt.timedelta(days=day):%Y%m%d}032000-DEMO-L3S_GHRSST-SSTskin-1d_day-fv{version:02d}.nc"


def write_sst_day(
    path: Path, day: int, *, grid: SstGrid | None = None, cover: float = 0.22, correction: float = 0.0
) -> Path:
    """Writes one day of sea surface temperature as a NetCDF-4 file.

    Args:
        path: The file to write; its folder exists.
        day: Days since `FIRST_DAY`.
        grid: The grid; by default 180 × 240 cells.
        cover: Share of the cells hidden by cloud; a revised file sees more.
        correction: Kelvin added everywhere, as a reprocessing does.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.

    Example:
        >>> write_sst_day(Path("20220101.nc"), day=0)
    """
    import netCDF4

    grid = grid or SstGrid()
    hidden = grid.clouds(day, cover)
    kelvin = grid.temperature(day) + correction
    missing = grid.land | (hidden > 0)
    packed = np.where(missing, FILL_INT16, np.rint((kelvin - 273.15) / 0.01)).astype(np.int16)
    quality = np.where(grid.land, FILL_INT8, np.clip(np.rint(3.2 - 2.0 * hidden), 1, 5)).astype(np.int8)
    bias = np.where(missing, FILL_INT8, np.rint((0.08 * np.cos(kelvin) + correction) / 0.02)).astype(np.int8)

    rows, columns = grid.land.shape
    cut = (1, -(-rows // 2), -(-columns // 2))
    with netCDF4.Dataset(path, "w", format="NETCDF4") as file:
        file.setncatts(
            {
                "Conventions": "CF-1.6, ACDD-1.3",
                "title": "made sea surface temperature, not an observation",
                "gds_version_id": "2.0r5",
                "product_version": f"{1 + bool(correction)}.0",
                "start_time": f"{FIRST_DAY + dt.timedelta(days=day):%Y%m%d}T032000Z",
            }
        )
        file.createDimension("time", None)
        file.createDimension("lat", rows)
        file.createDimension("lon", columns)
        time = file.createVariable("time", "i4", ("time",))
        time.setncatts({"long_name": "reference time of sst file", "standard_name": "time", "axis": "T"})
        time.setncatts({"units": "seconds since 1981-01-01 00:00:00", "calendar": "gregorian"})
        time[:] = [((FIRST_DAY - EPOCH).days + day) * 86400 + 3 * 3600 + 20 * 60]
        for name, values, units in (("lat", grid.lat, "degrees_north"), ("lon", grid.lon, "degrees_east")):
            axis = file.createVariable(name, "f4", (name,))
            axis.setncatts({"standard_name": {"lat": "latitude", "lon": "longitude"}[name], "units": units})
            axis[:] = values
        for name, raw, fill, attributes in (
            (
                "sea_surface_temperature",
                packed,
                np.int16(FILL_INT16),
                {"units": "kelvin", "standard_name": "sea_surface_skin_temperature", "scale_factor": 0.01}
                | {"add_offset": 273.15, "valid_min": np.int16(-300), "valid_max": np.int16(4500)},
            ),
            (
                "quality_level",
                quality,
                np.int8(FILL_INT8),
                {"long_name": "quality level of SST pixel", "flag_values": np.arange(6, dtype=np.int8)}
                | {"flag_meanings": "no_data bad_data worst_quality low_quality acceptable_quality best_quality"},
            ),
            (
                "sses_bias",
                bias,
                np.int8(FILL_INT8),
                {"units": "kelvin", "long_name": "SSES bias estimate", "scale_factor": 0.02, "add_offset": 0.0},
            ),
        ):
            variable = file.createVariable(
                name,
                raw.dtype,
                ("time", "lat", "lon"),
                fill_value=fill,
                compression="zlib",
                complevel=4,
                shuffle=True,
                chunksizes=cut,
            )
            variable.set_auto_maskandscale(False)
            variable.setncatts(attributes)
            variable[0] = raw
    return path


def write_profile(
    path: Path, *, platform: int, cycle: int, levels: int, mode: str = "R", correction: float = 0.0
) -> Path:
    """Writes one float profile as a classic CDF-1 file, as Argo does.

    Args:
        path: The file to write; its folder exists.
        platform: WMO number of the float.
        cycle: Number of the dive.
        levels: Depths at which it measured.
        mode: `R` for real time, `D` for delayed mode.
        correction: Added to the salinity, as a delayed-mode check does.

    Returns:
        The path.

    Raises:
        OSError: The file cannot be written.

    Example:
        >>> write_profile(Path("R5900001_001.nc"), platform=5900001, cycle=1, levels=60)
    """
    import netCDF4

    generator = np.random.default_rng([platform, cycle])
    pressure = np.linspace(4.0, 12.0 * levels, levels)
    temperature = 2.0 + 22.0 * np.exp(-pressure / 350.0) + 0.05 * generator.normal(size=levels)
    salinity = 34.6 + 0.9 * np.exp(-(((pressure - 120.0) / 160.0) ** 2)) + correction
    with netCDF4.Dataset(path, "w", format="NETCDF3_CLASSIC") as file:
        file.setncatts({"title": "made profile, not an observation", "featureType": "trajectoryProfile"})
        for name, size in (("STRING8", 8), ("STRING32", 32), ("N_PROF", 1), ("N_LEVELS", levels)):
            file.createDimension(name, size)
        for name, content, length in (
            ("PLATFORM_NUMBER", str(platform), 8),
            ("DC_REFERENCE", f"{platform}/{cycle}", 32),
        ):
            text = file.createVariable(name, "S1", ("N_PROF", f"STRING{length}"), fill_value=b" ")
            text[0] = np.frombuffer(content.ljust(length).encode(), dtype="S1")
        file.createVariable("DATA_MODE", "S1", ("N_PROF",), fill_value=b" ")[:] = np.array([mode], dtype="S1")
        for name, kind, value, attributes in (
            ("CYCLE_NUMBER", "i4", cycle, {"long_name": "Float cycle number"}),
            ("JULD", "f8", 26000.0 + 10 * cycle, {"units": "days since 1950-01-01 00:00:00 UTC"}),
            ("LATITUDE", "f8", -31.5 - 0.2 * cycle, {"units": "degree_north"}),
            ("LONGITUDE", "f8", 113.0 - 0.3 * cycle, {"units": "degree_east"}),
        ):
            scalar = file.createVariable(name, kind, ("N_PROF",), fill_value=99999)
            scalar.setncatts(attributes)
            scalar[:] = value
        for name, values, units in (
            ("PRES", pressure, "decibar"),
            ("TEMP", temperature, "degree_Celsius"),
            ("PSAL", salinity, "psu"),
        ):
            profile = file.createVariable(name, "f4", ("N_PROF", "N_LEVELS"), fill_value=99999.0)
            profile.setncatts({"units": units})
            profile[0] = values.astype(np.float32)
            quality = file.createVariable(f"{name}_QC", "S1", ("N_PROF", "N_LEVELS"), fill_value=b" ")
            quality[0] = np.full(levels, b"1", dtype="S1")
    return path
