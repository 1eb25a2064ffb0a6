//! Display devices, from what Linux says of its buses; drivers are not asked. Elsewhere none are listed.

use std::fs;
use std::path::{Path, PathBuf};

use super::line;

/// A graphics processor or another display device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// The maker's name, or its number on the bus (`0x1234`).
    pub vendor: String,
    /// The product's name where a driver tells it, else its number on the bus.
    pub model: String,
    /// The kernel driver that holds it; none when no driver does.
    pub driver: Option<String>,
}

/// Makers by their number on the PCI bus.
const VENDORS: [(&str, &str); 9] = [
    ("0x1002", "AMD"),
    ("0x10de", "NVIDIA"),
    ("0x8086", "Intel"),
    ("0x1234", "QEMU (virtual)"),
    ("0x15ad", "VMware (virtual)"),
    ("0x1af4", "virtio (virtual)"),
    ("0x1b36", "Red Hat (virtual)"),
    ("0x1a03", "ASPEED (board management)"),
    ("0x102b", "Matrox"),
];

pub(super) fn probe() -> Vec<Gpu> {
    on_pci(Path::new("/sys/bus/pci/devices"))
        .into_iter()
        .chain(on_chip(Path::new("/sys/class/drm")))
        .collect()
}

/// The devices of class 3, display controllers.
fn on_pci(devices: &Path) -> Vec<Gpu> {
    let gpu = |folder: PathBuf| {
        line(folder.join("class")).filter(|class| class.starts_with("0x03"))?;
        let vendor = line(folder.join("vendor"))?;
        let known = VENDORS.iter().find(|(number, _)| *number == vendor).map(|(_, name)| (*name).to_owned());
        let model = product(&folder).or_else(|| nvidia(&folder)).or_else(|| line(folder.join("device")))?;
        Some(Gpu { vendor: known.unwrap_or(vendor), model, driver: driver(&folder) })
    };
    folders(devices).into_iter().filter_map(gpu).collect()
}

/// Devices of systems on a chip: they have a card but no number of a maker.
fn on_chip(cards: &Path) -> Vec<Gpu> {
    let gpu = |card: PathBuf| {
        let name = card.file_name()?.to_str()?;
        let number = name.strip_prefix("card")?;
        let device = card.join("device");
        if !number.bytes().all(|b| b.is_ascii_digit()) || device.join("vendor").exists() {
            return None;
        }
        let compatible = fs::read_to_string(device.join("of_node/compatible")).ok()?;
        let (vendor, model) = compatible.split('\0').next()?.split_once(',')?;
        Some(Gpu { vendor: vendor.to_owned(), model: model.to_owned(), driver: driver(&device) })
    };
    folders(cards).into_iter().filter_map(gpu).collect()
}

/// The name that AMD's driver tells.
fn product(folder: &Path) -> Option<String> {
    line(folder.join("product_name"))
}

/// The name that NVIDIA's driver tells.
fn nvidia(folder: &Path) -> Option<String> {
    let slot = folder.file_name()?;
    let about = line(Path::new("/proc/driver/nvidia/gpus").join(slot).join("information"))?;
    let model = about.lines().find_map(|l| l.strip_prefix("Model:"))?;
    Some(model.trim().to_owned())
}

fn driver(folder: &Path) -> Option<String> {
    let driver = fs::read_link(folder.join("driver")).ok()?;
    Some(driver.file_name()?.to_str()?.to_owned())
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<_> = fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
    folders.sort();
    folders
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, files: &[(&str, &str)]) {
        for (path, text) in files {
            let path = root.join(path);
            fs::create_dir_all(path.parent().expect("a folder")).expect("writable");
            fs::write(path, text).expect("writable");
        }
    }

    fn gpu(vendor: &str, model: &str) -> Gpu {
        Gpu { vendor: vendor.into(), model: model.into(), driver: None }
    }

    #[test]
    fn display_controllers_are_found_on_the_bus() {
        let root = tempfile::tempdir().expect("a folder");
        write(
            root.path(),
            &[
                ("0000:00:01.0/class", "0x020000\n"),
                ("0000:00:01.0/vendor", "0x8086\n"),
                ("0000:00:02.0/class", "0x030200\n"),
                ("0000:00:02.0/vendor", "0x10de\n"),
                ("0000:00:02.0/device", "0x2335\n"),
                ("0000:00:03.0/class", "0x030000\n"),
                ("0000:00:03.0/vendor", "0x1002\n"),
                ("0000:00:03.0/device", "0x744c\n"),
                ("0000:00:03.0/product_name", "Radeon Pro W7900\n"),
                ("0000:00:04.0/class", "0x030000\n"),
                ("0000:00:04.0/vendor", "0xabcd\n"),
                ("0000:00:04.0/device", "0x0001\n"),
            ],
        );
        let found = on_pci(root.path());
        assert_eq!(found, [gpu("NVIDIA", "0x2335"), gpu("AMD", "Radeon Pro W7900"), gpu("0xabcd", "0x0001")]);
    }

    #[test]
    fn cards_of_a_chip_are_named_by_its_description() {
        let root = tempfile::tempdir().expect("a folder");
        write(
            root.path(),
            &[
                ("card0/device/of_node/compatible", "arm,mali-valhall\0arm,mali\0"),
                ("card0-HDMI-A-1/device/of_node/compatible", "arm,mali\0"),
                ("card1/device/vendor", "0x10de\n"),
                ("renderD128/device/of_node/compatible", "arm,mali\0"),
            ],
        );
        assert_eq!(on_chip(root.path()), [gpu("arm", "mali-valhall")]);
    }
}
