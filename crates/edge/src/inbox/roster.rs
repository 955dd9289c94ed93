//! The devices of a worker. Each has a number while its stream lasts, and is either in the list or in a task. The list
//! is one piece of memory, because all devices are visited once a second, and the subscribers of a topic for each
//! letter to it.

use slab::Slab;

use crate::inbox::device::DeviceStream;

/// The devices by number. A device in a task has its number, but [`None`] in its slot.
#[derive(Default)]
pub(crate) struct Roster(Slab<Option<DeviceStream>>);

impl Roster {
    /// Returns a number for a new device, which is in a task. No other device has the number until [`Roster::leave`].
    pub(crate) fn enter(&mut self) -> usize {
        self.0.insert(None)
    }

    /// Frees a number.
    pub(crate) fn leave(&mut self, number: usize) {
        self.0.remove(number);
    }

    /// Puts a device from a task into the list.
    pub(crate) fn put(&mut self, device_stream: DeviceStream) {
        let number = device_stream.number;
        self.0[number] = Some(device_stream);
    }

    /// Returns a device, if it is in the list.
    pub(crate) fn get_mut(&mut self, number: usize) -> Option<&mut DeviceStream> {
        self.0.get_mut(number)?.as_mut()
    }

    /// Takes a device out of the list, if it is there. The caller makes a task of it or ends its stream.
    pub(crate) fn take(&mut self, number: usize) -> Option<DeviceStream> {
        self.0.get_mut(number)?.take()
    }

    /// Takes out of the list the devices for which `wanted` returns true. The caller makes tasks of them or ends their
    /// streams.
    pub(crate) fn take_if(&mut self, wanted: impl Fn(&DeviceStream) -> bool) -> Vec<DeviceStream> {
        let slots = self.0.iter_mut().map(|(_, slot)| slot);
        slots.filter_map(|slot| slot.take_if(|device_stream| wanted(device_stream))).collect()
    }

    /// Returns the devices in the list.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut DeviceStream> {
        self.0.iter_mut().filter_map(|(_, slot)| slot.as_mut())
    }
}
