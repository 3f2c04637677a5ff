/*
 * What UEFI starts on a disk with two slots: it reads the table of slots, boots the one that is to be booted, and
 * takes note before that a trial has begun, so that the next boot goes back unless the trial has been confirmed.
 *
 * A kernel is loaded only if its checksum is right; where it is not, or the kernel returns, the other slot
 * is started. Kernels are read by their sectors: no file system is needed for it, and none is written to.
 *
 * In C, since neither the tool chain that builds us nor every reader's has Rust for UEFI, and what compiles
 * the kernel is there. Numbers of sections are those of the UEFI specification 2.10.
 */

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef u64 status;
typedef void *handle;

#define API __attribute__((ms_abi))
#define NULL ((void *)0)
#define IS_ERROR(s) ((s) >> 63)
#define LOAD_ERROR (1ULL << 63 | 1)

#define SECTOR 512
/* Where the table lies, and its fields; builder/src/disk/slots.rs has them in words. */
#define TABLE_LBA 40
#define VERSION 1
#define AT_VERSION 8
#define AT_DEFAULT 9
#define AT_TRIAL 10
#define AT_RECORDS 16
#define RECORD_BYTES 96
#define AT_CHECKSUM 508
#define TRIAL_PENDING 1
#define TRIAL_BOOTED 2
/* A kernel beyond this is none of ours. */
#define KERNEL_MAX (64U << 20)

struct guid { u32 a; u16 b, c; u8 d[8]; };

/* 10.2: a device path's node. */
struct node { u8 type, subtype, length[2]; };
#define NODE_MEDIA 4
#define NODE_HARD_DRIVE 1
#define NODE_END 0x7f

/* 13.9 */
struct media {
	u32 id;
	u8 removable, present, is_partition, read_only, write_caching;
	u32 block_bytes, alignment;
	u64 last_block;
};
struct block_io {
	u64 revision;
	struct media *media;
	void *reset;
	status (API *read)(struct block_io *, u32 media, u64 lba, u64 bytes, void *to);
	status (API *write)(struct block_io *, u32 media, u64 lba, u64 bytes, const void *from);
	status (API *flush)(struct block_io *);
};

/* 9.1 */
struct loaded_image {
	u32 revision;
	handle parent;
	void *system;
	handle device;
	void *file_path, *reserved;
	u32 options_bytes;
	void *options;
};

/* 12.4 */
struct text_output {
	void *reset;
	status (API *write)(struct text_output *, const u16 *);
};

/* 4.4, as far as it is used. */
struct boot_services {
	u8 header[24];
	void *raise_tpl, *restore_tpl;
	status (API *allocate_pages)(u32 how, u32 kind, u64 pages, u64 *address);
	status (API *free_pages)(u64 address, u64 pages);
	void *memory_map, *allocate_pool, *free_pool;
	void *events[6];
	void *install, *reinstall, *uninstall;
	status (API *protocol)(handle, const struct guid *, void **);
	void *reserved, *notify, *locate;
	status (API *locate_path)(const struct guid *, struct node **, handle *);
	void *install_table;
	status (API *load)(u8 by_policy, handle parent, void *path, void *from, u64 bytes, handle *);
	status (API *start)(handle, u64 *, u16 **);
	void *exit;
	status (API *unload)(handle);
	void *exit_boot_services, *monotonic_count;
	status (API *stall)(u64 microseconds);
	void *watchdog, *connect, *disconnect, *open, *close, *information;
	void *per_handle, *locate_buffer, *locate_protocol, *install_many, *uninstall_many;
	status (API *crc32)(const void *, u64 bytes, u32 *);
};

/* 4.3 */
struct system_table {
	u8 header[24];
	u16 *vendor;
	u32 revision;
	handle in_handle;
	void *in;
	handle out_handle;
	struct text_output *out;
	handle error_handle;
	void *error, *runtime;
	struct boot_services *boot;
};

/* One function that everything is inlined into must come first: see the linker's script. */
#define HELPER static inline

HELPER u32 u32_at(const u8 *bytes)
{
	return bytes[0] | bytes[1] << 8 | bytes[2] << 16 | (u32)bytes[3] << 24;
}

HELPER u64 u64_at(const u8 *bytes)
{
	return u32_at(bytes) | (u64)u32_at(bytes + 4) << 32;
}

HELPER void say(struct system_table *system, const u16 *text)
{
	if (system->out)
		system->out->write(system->out, text);
}

/* Whether these 512 bytes are a table. The state of the trial is not in the checksum: whoever boots by BIOS
 * changes it in 440 bytes of code. */
HELPER int is_table(struct boot_services *boot, u8 *table)
{
	u32 sum = 0;
	u8 trial = table[AT_TRIAL];
	if (u64_at(table) != 0x53544f4c53574f57ULL /* WOWSLOTS */ || table[AT_VERSION] != VERSION)
		return 0;
	table[AT_TRIAL] = 0;
	boot->crc32(table, AT_CHECKSUM, &sum);
	table[AT_TRIAL] = trial;
	return sum == u32_at(table + AT_CHECKSUM) && table[AT_DEFAULT] < 2;
}

/* The disk that the loader's partition is on. */
static struct block_io *disk_of(struct boot_services *boot, handle partition)
{
	const struct guid path_guid = { 0x09576e91, 0x6d3f, 0x11d2, { 0x8e, 0x39, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b } };
	const struct guid block_guid = { 0x964e5b21, 0x6459, 0x11d2, { 0x8e, 0x39, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b } };
	u8 copy[512];
	u32 at = 0, i;
	struct node *path, *rest = (struct node *)copy;
	struct block_io *disk;
	handle found;
	if (IS_ERROR(boot->protocol(partition, &path_guid, (void **)&path)))
		return NULL;
	/* Up to the partition's node, which is the first of its kind. */
	for (;;) {
		const u8 *from = (u8 *)path + at;
		const struct node *node = (struct node *)from;
		u32 length = node->length[0] | node->length[1] << 8;
		if (node->type == NODE_END || length < 4 || at + length + 4 > sizeof copy)
			return NULL;
		if (node->type == NODE_MEDIA && node->subtype == NODE_HARD_DRIVE)
			break;
		for (i = 0; i < length; i++)
			copy[at + i] = from[i];
		at += length;
	}
	copy[at] = NODE_END;
	copy[at + 1] = 0xff;
	copy[at + 2] = 4;
	copy[at + 3] = 0;
	if (IS_ERROR(boot->locate_path(&block_guid, &rest, &found)) || rest->type != NODE_END)
		return NULL;
	if (IS_ERROR(boot->protocol(found, &block_guid, (void **)&disk)))
		return NULL;
	return disk->media->is_partition || disk->media->block_bytes != SECTOR ? NULL : disk;
}

/* Notes that the trial has begun; whether that is on the disk now. */
static int begin_trial(struct boot_services *boot, struct block_io *disk, u8 *table)
{
	u8 *again = table + SECTOR;
	u32 media = disk->media->id;
	table[AT_TRIAL] = TRIAL_BOOTED;
	if (IS_ERROR(disk->write(disk, media, TABLE_LBA, SECTOR, table)) || IS_ERROR(disk->flush(disk)))
		return 0;
	if (IS_ERROR(disk->read(disk, media, TABLE_LBA, SECTOR, again)))
		return 0;
	return is_table(boot, again) && again[AT_TRIAL] == TRIAL_BOOTED;
}

/* Starts the kernel of a slot; comes back if that fails. */
static void run(handle self, struct system_table *system, struct block_io *disk, const u8 *table, u32 slot)
{
	const struct guid image_guid = { 0x5b1b31a1, 0x9562, 0x11d2, { 0x8e, 0x3f, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b } };
	struct boot_services *boot = system->boot;
	const u8 *record = table + AT_RECORDS + slot * RECORD_BYTES;
	u64 lba = u64_at(record);
	u32 length = u32_at(record + 12), sum = 0;
	u64 bytes = ((u64)length + SECTOR - 1) / SECTOR * SECTOR, pages = (bytes + 4095) / 4096, memory = 0;
	struct loaded_image *image;
	handle kernel;
	u16 options[] = L"wow.slot=a";
	if (!length || length > KERNEL_MAX)
		return;
	/* Anywhere, as a loader's data. */
	if (IS_ERROR(boot->allocate_pages(0, 2, pages, &memory)))
		return;
	if (IS_ERROR(disk->read(disk, disk->media->id, lba, bytes, (void *)memory)))
		goto out;
	if (IS_ERROR(boot->crc32((void *)memory, length, &sum)) || sum != u32_at(record + 16))
		goto out;
	if (IS_ERROR(boot->load(0, self, NULL, (void *)memory, length, &kernel)))
		goto out;
	if (!IS_ERROR(boot->protocol(kernel, &image_guid, (void **)&image))) {
		options[9] += slot;
		image->options = options;
		image->options_bytes = sizeof options;
		boot->start(kernel, NULL, NULL);
	}
	boot->unload(kernel);
out:
	boot->free_pages(memory, pages);
}

__attribute__((section(".text.start"))) API status start(handle self, struct system_table *system)
{
	const struct guid image_guid = { 0x5b1b31a1, 0x9562, 0x11d2, { 0x8e, 0x3f, 0, 0xa0, 0xc9, 0x69, 0x72, 0x3b } };
	struct boot_services *boot = system->boot;
	struct loaded_image *own;
	struct block_io *disk;
	u64 memory = 0;
	u8 *table;
	u32 slot;
	/* A page is aligned as any disk wants it. */
	if (IS_ERROR(boot->allocate_pages(0, 2, 1, &memory)))
		return LOAD_ERROR;
	table = (u8 *)memory;
	if (IS_ERROR(boot->protocol(self, &image_guid, (void **)&own)) || !(disk = disk_of(boot, own->device)) ||
	    IS_ERROR(disk->read(disk, disk->media->id, TABLE_LBA, SECTOR, table)) || !is_table(boot, table)) {
		say(system, L"wow: cannot read the table of slots\r\n");
		return LOAD_ERROR;
	}
	slot = table[AT_DEFAULT];
	if (table[AT_TRIAL] == TRIAL_PENDING && begin_trial(boot, disk, table))
		slot ^= 1;
	run(self, system, disk, table, slot);
	say(system, L"wow: this slot's kernel cannot be started, trying the other\r\n");
	run(self, system, disk, table, slot ^ 1);
	say(system, L"wow: no slot has a kernel that starts\r\n");
	/* For a person to read it. */
	boot->stall(10000000);
	return LOAD_ERROR;
}
