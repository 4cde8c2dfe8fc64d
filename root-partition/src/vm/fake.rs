//! A kernel and a hypervisor for tests of the worker: pools that run short, VPs that are registers and a message.

use super::bus::fake::FakePorts;
use super::host::{BLOCK, FRAME, Host, Job, Listener};
use super::machine::Files;
use hypercall_api::access::{TranslateFlags, TranslateResult, TranslatedVirtualAddress};
use hypercall_api::address::{Gpfn, Gva};
use hypercall_api::call::Incomplete;
use hypercall_api::counter::COUNTERS;
use hypercall_api::id::{PartitionId, VpIndex};
use hypercall_api::intercept::RegisterCpuidResult;
use hypercall_api::interrupt::{
    AssertVirtualInterrupt, DeviceId, InterruptEntry, MapDeviceInterrupt, MappedDeviceInterrupt,
};
use hypercall_api::memory::{MapGpaFlags, MemoryBalance};
use hypercall_api::message::Message;
use hypercall_api::partition::PartitionProperty;
use hypercall_api::register::{RegisterAssociation, RegisterName, RegisterValue};
use hypercall_api::status::HvStatus;
use spin::Mutex;
use std::alloc::{Layout, alloc, dealloc};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Waker};

/// What a partition and its VPs take from their pools, in pages.
const PARTITION_PAGES: usize = 2;
const ADDRESS_SPACE_PAGES: usize = 1;
const VP_PAGES: usize = 5;

#[derive(Default)]
struct Pool {
    free: Vec<Gpfn>,
    used: Vec<Gpfn>,
}

impl Pool {
    fn take(&mut self, count: usize) -> Result<(), HvStatus> {
        if self.free.len() < count {
            return Err(HvStatus::INSUFFICIENT_MEMORY);
        }
        let rest = self.free.len() - count;
        self.used.extend(self.free.drain(rest..));
        Ok(())
    }
}

#[derive(Default)]
pub(crate) struct Partition {
    pool: Pool,
    pub(crate) properties: Vec<(PartitionProperty, u64)>,
    /// Leaves that are not what the hypervisor says, and the bits of EAX that are cleared.
    pub(crate) cpuid: Vec<(u32, u32)>,
    /// It asks what becomes of MSRs that it does not have.
    pub(crate) hears_of_msrs: bool,
    pub(crate) pages: BTreeMap<u64, u64>,
    pub(crate) vps: BTreeMap<u32, BTreeMap<RegisterName, RegisterValue>>,
    finalized: bool,
}

#[derive(Default)]
struct World {
    /// RAM that is handed out: address and size.
    allocated: BTreeMap<u64, u64>,
    own: Pool,
    partitions: BTreeMap<u64, Partition>,
    ended: usize,
    listeners: BTreeMap<u64, Arc<dyn Listener>>,
    messages: BTreeMap<u64, Message>,
    interrupts: Vec<AssertVirtualInterrupt>,
    /// Devices, and the partitions whose memory they reach.
    domains: BTreeMap<u64, u64>,
    jobs: Vec<Job>,
}

/// The fake; clones are the same.
#[derive(Clone)]
pub(crate) struct FakeHost {
    pub(crate) ports: Arc<Mutex<FakePorts>>,
    world: Arc<Mutex<World>>,
    own_pages: Arc<AtomicUsize>,
    /// Frames that may still be handed out.
    budget: Arc<AtomicUsize>,
    clock: Arc<AtomicU64>,
}

impl FakeHost {
    pub(crate) fn with_frames(frames: usize) -> Self {
        Self {
            ports: Arc::default(),
            world: Arc::default(),
            own_pages: Arc::default(),
            budget: Arc::new(AtomicUsize::new(frames)),
            clock: Arc::default(),
        }
    }

    /// Frames that can be had.
    pub(crate) fn free_frames(&self) -> usize {
        self.budget.load(Ordering::Relaxed)
    }

    /// Pages in the root's own pool.
    pub(crate) fn own_pool(&self) -> usize {
        let world = self.world.lock();
        world.own.free.len() + world.own.used.len()
    }

    /// Partitions that there are, and that there were.
    pub(crate) fn partitions(&self) -> (usize, usize) {
        let world = self.world.lock();
        (world.partitions.len(), world.ended)
    }

    /// Looks at the one partition.
    pub(crate) fn partition<T>(&self, look: impl FnOnce(u64, &mut Partition) -> T) -> T {
        let mut world = self.world.lock();
        let (id, partition) = world.partitions.iter_mut().next().expect("there is a partition");
        look(*id, partition)
    }

    pub(crate) fn register(&self, vp: u32, name: RegisterName) -> u64 {
        self.partition(|_, partition| partition.vps[&vp].get(&name).map_or(0, |value| value.u64()))
    }

    pub(crate) fn set(&self, vp: u32, name: RegisterName, value: u64) {
        self.partition(|_, partition| {
            let vp = partition.vps.get_mut(&vp).expect("there is the VP");
            vp.insert(name, value.into());
        });
    }

    /// The partition whose memory a device reaches.
    pub(crate) fn domain_of(&self, device: DeviceId) -> Option<u64> {
        self.world.lock().domains.get(&device.0).copied()
    }

    pub(crate) fn interrupts(&self) -> Vec<AssertVirtualInterrupt> {
        std::mem::take(&mut self.world.lock().interrupts)
    }

    /// Suspends a VP of the one partition with `message`, and tells of it; then runs what there is to run.
    pub(crate) fn intercept(&self, vp: u32, message: &Message) {
        self.set(vp, RegisterName::INTERCEPT_SUSPEND, 1);
        let id = self.partition(|id, _| id);
        let listener = {
            let mut world = self.world.lock();
            world.messages.insert(message_page(id, vp), *message);
            world.listeners.get(&id).cloned()
        };
        listener.expect("somebody listens").intercept(VpIndex(vp));
        self.run();
    }

    /// Polls all tasks until none of them gets further.
    pub(crate) fn run(&self) {
        for _ in 0..2000 {
            self.step();
        }
    }

    /// Polls each task once.
    pub(crate) fn step(&self) {
        let jobs = std::mem::take(&mut self.world.lock().jobs);
        let mut context = Context::from_waker(Waker::noop());
        let mut left: Vec<Job> = jobs
            .into_iter()
            .filter_map(|mut job| job.as_mut().poll(&mut context).is_pending().then_some(job))
            .collect();
        self.world.lock().jobs.append(&mut left);
    }

    fn take_frames(&self, count: usize, align: u64) -> Option<u64> {
        let budget = &self.budget;
        budget
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
                left.checked_sub(count)
            })
            .ok()?;
        let size = count as u64 * FRAME;
        let layout = Layout::from_size_align(size as usize, align as usize).expect("is sound");
        // SAFETY: the layout is not empty.
        let address = unsafe { alloc(layout) } as u64;
        self.world.lock().allocated.insert(address, size);
        Some(address)
    }

    fn pool<T>(
        &self,
        partition: PartitionId,
        work: impl FnOnce(&mut Pool) -> Result<T, HvStatus>,
    ) -> Result<T, HvStatus> {
        let mut world = self.world.lock();
        match partition {
            PartitionId::SELF => work(&mut world.own),
            PartitionId(id) => {
                let partition = world.partitions.get_mut(&id);
                work(&mut partition.ok_or(HvStatus::INVALID_PARTITION_ID)?.pool)
            }
        }
    }

    fn with<T>(
        &self,
        partition: PartitionId,
        work: impl FnOnce(&mut Partition) -> Result<T, HvStatus>,
    ) -> Result<T, HvStatus> {
        let mut world = self.world.lock();
        let partition = world.partitions.get_mut(&partition.0);
        work(partition.ok_or(HvStatus::INVALID_PARTITION_ID)?)
    }
}

const fn message_page(partition: u64, vp: u32) -> u64 {
    partition << 16 | vp as u64
}

impl Host for FakeHost {
    fn allocate_block(&self) -> Option<u64> {
        self.take_frames((BLOCK / FRAME) as usize, BLOCK)
    }

    fn allocate_frames(&self, count: usize) -> Option<u64> {
        self.take_frames(count, FRAME)
    }

    fn release(&self, range: Range<u64>) {
        let size = self.world.lock().allocated.remove(&range.start);
        assert_eq!(
            size,
            Some(range.end - range.start),
            "{range:x?} is what was handed out"
        );
        self.budget
            .fetch_add(((range.end - range.start) / FRAME) as usize, Ordering::Relaxed);
        let align = if range.end - range.start == BLOCK {
            BLOCK
        } else {
            FRAME
        };
        let layout = Layout::from_size_align((range.end - range.start) as usize, align as usize);
        // SAFETY: allocated with this layout above, and taken out of the list.
        unsafe { dealloc(range.start as *mut u8, layout.expect("is sound")) };
    }

    fn own_pages(&self) -> &AtomicUsize {
        &self.own_pages
    }

    fn spawn(&self, job: Job) {
        self.world.lock().jobs.push(job);
    }

    fn now(&self) -> u64 {
        self.clock.fetch_add(10, Ordering::Relaxed)
    }

    fn sleep(&self, _: core::time::Duration) -> Job {
        Box::pin(core::future::pending())
    }

    fn wall_clock(&self) -> Option<u64> {
        Some(116_444_736_000_000_000)
    }

    fn fill_random(&self, bytes: &mut [u8]) -> bool {
        bytes.fill(0x5a);
        true
    }

    fn listen(&self, partition: PartitionId, listener: Option<Arc<dyn Listener>>) {
        let mut world = self.world.lock();
        let before = match listener {
            Some(listener) => world.listeners.insert(partition.0, listener),
            None => world.listeners.remove(&partition.0),
        };
        drop(world);
        drop(before);
    }

    fn create_partition(&self) -> Result<PartitionId, HvStatus> {
        self.pool(PartitionId::SELF, |pool| pool.take(PARTITION_PAGES))?;
        let mut world = self.world.lock();
        let id = 0x100 + (world.partitions.len() + world.ended) as u64;
        world.partitions.insert(id, Partition::default());
        Ok(PartitionId(id))
    }

    fn initialize_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        self.pool(partition, |pool| pool.take(ADDRESS_SPACE_PAGES))
    }

    fn set_property(
        &self,
        partition: PartitionId,
        property: PartitionProperty,
        value: u64,
    ) -> Result<(), HvStatus> {
        self.with(partition, |partition| {
            partition.properties.push((property, value));
            Ok(())
        })
    }

    fn register_cpuid(&self, policy: &RegisterCpuidResult) -> Result<(), HvStatus> {
        self.with(policy.partition, |partition| {
            partition.cpuid.push((policy.leaf, policy.eax[1]));
            Ok(())
        })
    }

    fn intercept_msrs(&self, partition: PartitionId) -> Result<(), HvStatus> {
        self.with(partition, |partition| {
            partition.hears_of_msrs = true;
            Ok(())
        })
    }

    fn finalize_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        self.with(partition, |partition| {
            partition.finalized = true;
            partition.pages.clear();
            partition.vps.clear();
            let used = std::mem::take(&mut partition.pool.used);
            partition.pool.free.extend(used);
            Ok(())
        })
    }

    fn delete_partition(&self, partition: PartitionId) -> Result<(), HvStatus> {
        self.ports.lock().assert_free_of(partition);
        self.with(partition, |partition| match partition.pool.free.is_empty() {
            true => Ok(()),
            false => Err(HvStatus::OPERATION_DENIED),
        })?;
        let mut world = self.world.lock();
        world.partitions.remove(&partition.0);
        world.ended += 1;
        let rest = world.own.used.len() - PARTITION_PAGES;
        let pages: Vec<Gpfn> = world.own.used.drain(rest..).collect();
        world.own.free.extend(pages);
        Ok(())
    }

    fn deposit(&self, partition: PartitionId, pages: &[Gpfn]) -> Result<(), Incomplete> {
        let result = self.pool(partition, |pool| {
            pool.free.extend(pages);
            Ok(())
        });
        result.map_err(|status| Incomplete { status, completed: 0 })
    }

    fn balance(&self, partition: PartitionId) -> Result<MemoryBalance, HvStatus> {
        self.pool(partition, |pool| {
            Ok(MemoryBalance {
                available: pool.free.len() as u64,
                in_use: pool.used.len() as u64,
            })
        })
    }

    fn withdraw(&self, partition: PartitionId, pages: &mut [Gpfn]) -> Result<usize, HvStatus> {
        self.pool(partition, |pool| {
            let count = pages.len().min(pool.free.len());
            let rest = pool.free.len() - count;
            pages[..count].copy_from_slice(&pool.free.split_off(rest));
            Ok(count)
        })
    }

    fn map(
        &self,
        partition: PartitionId,
        target: Gpfn,
        flags: MapGpaFlags,
        pages: &[Gpfn],
    ) -> Result<(), Incomplete> {
        let unit = if flags.contains(MapGpaFlags::LARGE_PAGE) {
            512
        } else {
            1
        };
        for (index, page) in pages.iter().enumerate() {
            let result = self.with(partition, |partition| {
                let target = target.0 + index as u64 * unit;
                assert!(target.is_multiple_of(unit) && page.0.is_multiple_of(unit));
                // Tables cost a page now and then.
                if target.is_multiple_of(64) {
                    partition.pool.take(1)?;
                }
                assert!(partition.pages.insert(target, page.0).is_none());
                Ok(())
            });
            result.map_err(|status| Incomplete {
                status,
                completed: index,
            })?;
        }
        Ok(())
    }

    fn create_vp(&self, partition: PartitionId, vp: VpIndex) -> Result<(), HvStatus> {
        self.with(partition, |partition| {
            partition.pool.take(VP_PAGES)?;
            let suspended = (RegisterName::EXPLICIT_SUSPEND, 1u64.into());
            partition.vps.insert(vp.0, BTreeMap::from([suspended]));
            Ok(())
        })
    }

    fn map_message_page(&self, partition: PartitionId, vp: VpIndex) -> Result<Gpfn, HvStatus> {
        Ok(Gpfn(message_page(partition.0, vp.0)))
    }

    fn read_message(&self, page: Gpfn) -> Message {
        self.world.lock().messages[&page.0]
    }

    fn get_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        names: &[RegisterName],
        values: &mut [RegisterValue],
    ) -> Result<(), HvStatus> {
        self.with(partition, |partition| {
            let vp = partition.vps.get(&vp.0).ok_or(HvStatus::INVALID_VP_INDEX)?;
            for (name, value) in names.iter().zip(values) {
                *value = vp.get(name).copied().unwrap_or_default();
            }
            Ok(())
        })
    }

    fn set_registers(
        &self,
        partition: PartitionId,
        vp: VpIndex,
        registers: &[RegisterAssociation],
    ) -> Result<(), HvStatus> {
        self.with(partition, |partition| {
            let vp = partition.vps.get_mut(&vp.0).ok_or(HvStatus::INVALID_VP_INDEX)?;
            vp.extend(registers.iter().map(|register| (register.name, register.value)));
            Ok(())
        })
    }

    /// Virtual addresses are physical ones, but for the page at 16 MiB less one, which is not there.
    fn translate(
        &self,
        _: PartitionId,
        _: VpIndex,
        _: TranslateFlags,
        address: Gva,
    ) -> Result<TranslatedVirtualAddress, HvStatus> {
        let page = address.0 / FRAME;
        Ok(TranslatedVirtualAddress {
            result: match page {
                0xfff => TranslateResult::PAGE_NOT_PRESENT,
                _ => TranslateResult::SUCCESS,
            },
            page_info: 0,
            page: Gpfn(page),
        })
    }

    fn attach_device(&self, partition: PartitionId, device: DeviceId) -> Result<(), HvStatus> {
        let mut world = self.world.lock();
        match world.domains.get(&device.0) {
            Some(owner) if *owner != partition.0 => Err(HvStatus::INVALID_DEVICE_STATE),
            _ => {
                world.domains.insert(device.0, partition.0);
                Ok(())
            }
        }
    }

    fn detach_device(&self, partition: PartitionId, device: DeviceId) -> Result<(), HvStatus> {
        let mut world = self.world.lock();
        if world.domains.get(&device.0) != Some(&partition.0) {
            return Err(HvStatus::INVALID_DEVICE_STATE);
        }
        world.domains.remove(&device.0);
        Ok(())
    }

    fn map_device_interrupt(&self, input: &MapDeviceInterrupt) -> Result<MappedDeviceInterrupt, HvStatus> {
        if self.domain_of(input.device) != Some(input.partition.0) {
            return Err(HvStatus::OPERATION_DENIED);
        }
        Ok(MappedDeviceInterrupt {
            entry: InterruptEntry::msi(0xfee0_0018, input.vector),
            extended_status: [0; 5],
        })
    }

    fn assert_interrupt(&self, interrupt: &AssertVirtualInterrupt) -> Result<(), HvStatus> {
        self.world.lock().interrupts.push(*interrupt);
        Ok(())
    }

    fn statistics(&self, _: PartitionId, _: VpIndex) -> Result<Box<[u64; COUNTERS]>, HvStatus> {
        Ok(Box::new([0; COUNTERS]))
    }
}

/// A boot archive of a few files.
pub(crate) struct FakeFiles(pub(crate) Vec<(&'static str, &'static [u8])>);

impl Files for FakeFiles {
    fn file(&self, name: &str) -> Option<&'static [u8]> {
        self.0
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, bytes)| *bytes)
    }

    fn descriptions(&self) -> Vec<&'static str> {
        let names = self.0.iter();
        names
            .filter_map(|(name, _)| name.strip_prefix("vms/")?.strip_suffix(".toml"))
            .collect()
    }
}
