/*
 * What a copy through DPDK's dmadev costs the thread that submits it: the other side of
 * `ioat bench dma`. The device is dma_skeleton, DPDK's own software engine: one thread that copies.
 *
 * The program measures exactly what crates/ioat/src/bench does, in the same way: see
 * bench/README.md for the definitions. It is a slave of that command, but serves by hand too:
 *
 *     echo 'cost 4096 32 128 256 50000' | target/bench/dpdk-dma 0 1
 *
 * Its arguments are the CPU of the submitting thread and that of the copy thread. Each line on
 * standard input is one measurement,
 *
 *     cost|latency SIZE BATCH DEPTH BUFFERS MICROSECONDS
 *
 * and is answered by one line of JSON on standard output. The device is started for a measurement
 * and stopped after it: between two of them no thread of this process runs.
 */

#define _GNU_SOURCE

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include <rte_bus_vdev.h>
#include <rte_cycles.h>
#include <rte_dmadev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_version.h>

enum {
	DEVICE = 0,
	VCHAN = 0,
	/* As many as a ring of ioat's threads engine holds. */
	RING_SIZE = 1024,
	CACHE_LINE = 64,
	PAGE = 4096,
	MAX_SAMPLES = 1 << 21,
};

/* One measurement, as it was asked for. */
struct request {
	bool latency;
	uint32_t size;
	unsigned batch;
	unsigned depth;
	unsigned buffers;
	uint64_t microseconds;
};

/* Pairs of buffers, of which operation number N copies pair N modulo `count`. */
struct buffers {
	uint8_t *base;
	size_t len;
	size_t stride;
	unsigned count;
	uint32_t size;
};

/* The state of a pipelined loop: operations are numbered from 0 in the order of submission. */
struct pipeline {
	struct buffers buffers;
	unsigned batch;
	unsigned depth;
	uint64_t submitted;
	uint64_t completed;
	/* The pair that the next operation copies. */
	unsigned next;
};

static double ns_per_tick;
/* Ticks between two readings of the clock with nothing in between. */
static uint64_t clock_ticks;
/* How long the copy thread may stand still. */
static uint64_t patience_ticks;

__attribute__((noreturn)) static void fail(const char *what, int error)
{
	fprintf(stderr, "dpdk-dma: %s: %s\n", what, strerror(abs(error)));
	exit(EXIT_FAILURE);
}

/*
 * Unlike rdtsc it waits for the loads before it: the cache miss of a poll belongs to the poll, not
 * to what comes after it.
 */
static inline uint64_t now(void)
{
	unsigned cpu;
	return __builtin_ia32_rdtscp(&cpu);
}

static int compare_ticks(const void *left, const void *right)
{
	const uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return (a > b) - (a < b);
}

/* Medians of many short runs: an interrupt in one of them changes nothing. */
static uint64_t clock_cost(void)
{
	enum { RUNS = 1001, READINGS = 16 };
	static uint64_t runs[RUNS];

	for (int run = 0; run < RUNS; run++) {
		const uint64_t start = now();
		uint64_t end = start;
		for (int reading = 0; reading < READINGS; reading++)
			end = now();
		runs[run] = (end - start) / READINGS;
	}
	qsort(runs, RUNS, sizeof(runs[0]), compare_ticks);
	return runs[RUNS / 2];
}

/* The same memory as an arena of ioat: a shared memory file, populated, on huge pages if it can. */
static struct buffers buffers_new(unsigned count, uint32_t size)
{
	const size_t align = size >= PAGE ? PAGE : CACHE_LINE;
	struct buffers buffers = {
		.stride = RTE_ALIGN_CEIL((size_t)size, align),
		.count = count,
		.size = size,
	};
	int file;

	buffers.len = RTE_ALIGN_CEIL(2 * count * buffers.stride, (size_t)PAGE);
	file = memfd_create("dpdk-dma", MFD_CLOEXEC);
	if (file < 0 || ftruncate(file, buffers.len) != 0)
		fail("memory file", errno);
	buffers.base = mmap(NULL, buffers.len, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	close(file);
	if (buffers.base == MAP_FAILED)
		fail("memory", errno);
	madvise(buffers.base, buffers.len, MADV_HUGEPAGE);
	return buffers;
}

static inline uint8_t *source(const struct buffers *buffers, unsigned pair)
{
	return buffers->base + (size_t)pair * buffers->stride;
}

static inline uint8_t *target(const struct buffers *buffers, unsigned pair)
{
	return buffers->base + ((size_t)buffers->count + pair) * buffers->stride;
}

/* Every source different from every other and from its target. */
static void buffers_fill(const struct buffers *buffers)
{
	for (unsigned pair = 0; pair < buffers->count; pair++) {
		for (uint32_t at = 0; at < buffers->size; at++)
			source(buffers, pair)[at] = (uint8_t)(at * 31 + at / 256 + pair * 7 + 1);
		for (uint32_t at = 0; at < buffers->size; at++)
			target(buffers, pair)[at] = (uint8_t)~source(buffers, pair)[at];
	}
}

/* That the pairs that were copied are equal, and the others still differ. */
static bool buffers_verify(const struct buffers *buffers, uint64_t operations)
{
	for (unsigned pair = 0; pair < buffers->count; pair++) {
		const bool equal =
			memcmp(source(buffers, pair), target(buffers, pair), buffers->size) == 0;
		if (equal != (pair < operations))
			return false;
	}
	return true;
}

/* Submits a batch and rings the doorbell. */
static inline void submit_batch(struct pipeline *pipeline)
{
	for (unsigned i = 0; i < pipeline->batch; i++) {
		const struct buffers *buffers = &pipeline->buffers;
		const rte_iova_t from = (uintptr_t)source(buffers, pipeline->next);
		const rte_iova_t to = (uintptr_t)target(buffers, pipeline->next);
		const int index = rte_dma_copy(DEVICE, VCHAN, from, to, buffers->size, 0);

		if (unlikely(index < 0))
			fail("rte_dma_copy", index);
		if (++pipeline->next == buffers->count)
			pipeline->next = 0;
	}
	const int error = rte_dma_submit(DEVICE, VCHAN);
	if (unlikely(error != 0))
		fail("rte_dma_submit", error);
	pipeline->submitted += pipeline->batch;
}

/* How many operations ended since the last call. */
static inline unsigned poll_completed(struct pipeline *pipeline)
{
	bool has_error = false;
	const unsigned ended =
		rte_dma_completed(DEVICE, VCHAN, pipeline->depth, NULL, &has_error);

	if (unlikely(has_error))
		fail("rte_dma_completed", EIO);
	pipeline->completed += ended;
	return ended;
}

static inline bool has_room(const struct pipeline *pipeline)
{
	return pipeline->submitted - pipeline->completed + pipeline->batch <= pipeline->depth;
}

static void drain(struct pipeline *pipeline)
{
	while (pipeline->completed < pipeline->submitted)
		poll_completed(pipeline);
}

/*
 * The copy thread begins on this CPU, and goes to its own when it first runs. Lets it, until it has
 * done something.
 */
static void settle(struct pipeline *pipeline)
{
	submit_batch(pipeline);
	while (pipeline->completed < pipeline->submitted) {
		usleep(100);
		poll_completed(pipeline);
	}
}

struct cost {
	uint64_t ticks;
	uint64_t submitted;
	uint64_t completed;
	uint64_t submit_ticks;
	uint64_t poll_ticks;
	/* How often the caller lost its CPU meanwhile. */
	uint64_t preemptions;
};

static uint64_t preemptions(void)
{
	struct rusage usage;

	return getrusage(RUSAGE_THREAD, &usage) == 0 ? usage.ru_nivcsw : 0;
}

/* What `step` took, without the clock's own time. */
static inline uint64_t since(uint64_t start, uint64_t end)
{
	const uint64_t ticks = end - start;
	return ticks > clock_ticks ? ticks - clock_ticks : 0;
}

/*
 * Runs the loop for a time; what it finds in the ring and what it leaves there is its pipeline. Goes
 * on for longer if nothing ended: the copy thread may have had to wait for its CPU.
 */
static struct cost cost_for(struct pipeline *pipeline, uint64_t duration_ticks)
{
	const uint64_t submitted = pipeline->submitted, completed = pipeline->completed;
	const uint64_t before = preemptions();
	const uint64_t start = now();
	struct cost cost = { 0 };
	uint64_t last = start;

	while (last - start < duration_ticks ||
	       ((pipeline->submitted == submitted || pipeline->completed == completed) &&
		last - start < patience_ticks)) {
		uint64_t time;

		if (has_room(pipeline)) {
			submit_batch(pipeline);
			time = now();
			cost.submit_ticks += since(last, time);
			last = time;
		}
		const bool some = poll_completed(pipeline) > 0;
		time = now();
		if (some)
			cost.poll_ticks += since(last, time);
		last = time;
	}
	cost.ticks = last - start;
	cost.submitted = pipeline->submitted - submitted;
	cost.completed = pipeline->completed - completed;
	cost.preemptions = preemptions() - before;
	return cost;
}

/* Times from before an operation's batch is submitted until its end was seen. */
static size_t latencies_for(struct pipeline *pipeline, uint64_t duration_ticks, uint64_t *samples)
{
	/* Of the operations in flight: more than a ring holds are never. */
	static uint64_t begun[RING_SIZE];
	const uint64_t start = now();
	uint64_t last = start;
	size_t count = 0;

	while (last - start < duration_ticks || (count == 0 && last - start < patience_ticks)) {
		if (has_room(pipeline)) {
			for (unsigned i = 0; i < pipeline->batch; i++)
				begun[(pipeline->submitted + i) % RING_SIZE] = last;
			submit_batch(pipeline);
		}
		uint64_t operation = pipeline->completed;
		poll_completed(pipeline);
		last = now();
		for (; operation < pipeline->completed && count < MAX_SAMPLES; operation++)
			samples[count++] = since(begun[operation % RING_SIZE], last);
	}
	return count;
}

static void print_cost(const struct cost *cost)
{
	const double submit_ns = cost->submit_ticks * ns_per_tick / cost->submitted;
	const double poll_ns = cost->poll_ticks * ns_per_tick / cost->completed;

	printf("{\"operations\":%" PRIu64 ",\"seconds\":%.9f,\"submit_ns\":%.3f,\"poll_ns\":%.3f,"
	       "\"caller_ns\":%.3f,\"preemptions\":%" PRIu64 ",\"verified\":true}\n",
	       cost->completed, cost->ticks * ns_per_tick / 1e9, submit_ns, poll_ns,
	       submit_ns + poll_ns, cost->preemptions);
}

static void print_latencies(uint64_t *samples, size_t count)
{
	qsort(samples, count, sizeof(samples[0]), compare_ticks);
	/* The smallest value that at least this part of the samples does not exceed. */
#define PERCENTILE_NS(permille) (samples[(count * (permille) + 999) / 1000 - 1] * ns_per_tick)
	printf("{\"samples\":%zu,\"p50_ns\":%.1f,\"p99_ns\":%.1f,\"p999_ns\":%.1f,\"max_ns\":%.1f,"
	       "\"verified\":true}\n",
	       count, PERCENTILE_NS(500), PERCENTILE_NS(990), PERCENTILE_NS(999),
	       samples[count - 1] * ns_per_tick);
#undef PERCENTILE_NS
}

static void measure(const struct request *request)
{
	static uint64_t samples[MAX_SAMPLES];
	struct pipeline pipeline = {
		.buffers = buffers_new(request->buffers, request->size),
		.batch = request->batch,
		.depth = request->depth,
	};
	const uint64_t duration_ticks = request->microseconds * 1000 / ns_per_tick;
	struct cost cost = { 0 };
	size_t count = 0;
	int error;

	buffers_fill(&pipeline.buffers);
	error = rte_dma_start(DEVICE);
	if (error != 0)
		fail("rte_dma_start", error);
	settle(&pipeline);
	/* A tenth of the time fills the pipeline and warms the caches. */
	cost_for(&pipeline, duration_ticks / 10);
	if (request->latency) {
		drain(&pipeline);
		count = latencies_for(&pipeline, duration_ticks, samples);
	} else {
		cost = cost_for(&pipeline, duration_ticks);
	}
	drain(&pipeline);
	error = rte_dma_stop(DEVICE);
	if (error != 0)
		fail("rte_dma_stop", error);
	if (!buffers_verify(&pipeline.buffers, pipeline.completed)) {
		fprintf(stderr, "dpdk-dma: the copies are wrong\n");
		exit(EXIT_FAILURE);
	}
	munmap(pipeline.buffers.base, pipeline.buffers.len);
	if ((request->latency && count == 0) ||
	    (!request->latency && (cost.submitted == 0 || cost.completed == 0))) {
		fprintf(stderr, "dpdk-dma: the copy thread stands still\n");
		exit(EXIT_FAILURE);
	}
	if (request->latency)
		print_latencies(samples, count);
	else
		print_cost(&cost);
	fflush(stdout);
}

static bool parse(const char *line, struct request *request)
{
	char mode[8];

	if (sscanf(line, "%7s %" SCNu32 " %u %u %u %" SCNu64, mode, &request->size,
		   &request->batch, &request->depth, &request->buffers,
		   &request->microseconds) != 6)
		return false;
	request->latency = strcmp(mode, "latency") == 0;
	return (request->latency || strcmp(mode, "cost") == 0) && request->size > 0 &&
	       request->batch > 0 && request->batch <= request->depth &&
	       request->depth < RING_SIZE && request->buffers > 0 && request->microseconds > 0;
}

/* Brings up DPDK without huge pages, PCI devices or shared files, and the one device. */
static void start_dpdk(const char *submitter, const char *engine)
{
	const struct rte_dma_conf device = { .nb_vchans = 1 };
	const struct rte_dma_vchan_conf vchan = {
		.direction = RTE_DMA_DIR_MEM_TO_MEM,
		.nb_desc = RING_SIZE,
	};
	char lcores[64], vdev[64];
	int error;

	/* The lcores are numbered 0 and 1, wherever they run. The main one is the first. */
	snprintf(lcores, sizeof(lcores), "--lcores=0@%s,1@%s", submitter, engine);
	snprintf(vdev, sizeof(vdev), "--vdev=dma_skeleton,lcore=1");
	const char *arguments[] = { "dpdk-dma",	    lcores,		vdev,
				    "--main-lcore=0", "--no-huge",	"-m",
				    "64",	    "--no-pci",		"--no-shconf",
				    "--iova-mode=va", "--no-telemetry", "--log-level=error" };
	if (rte_eal_init(RTE_DIM(arguments), (char **)(uintptr_t)arguments) < 0)
		fail("rte_eal_init", rte_errno);
	if (!rte_dma_is_valid(DEVICE))
		fail("dma_skeleton", ENODEV);
	error = rte_dma_configure(DEVICE, &device);
	if (error != 0)
		fail("rte_dma_configure", error);
	error = rte_dma_vchan_setup(DEVICE, VCHAN, &vchan);
	if (error != 0)
		fail("rte_dma_vchan_setup", error);
}

int main(int argc, char **argv)
{
	char line[256];

	if (argc != 3) {
		fprintf(stderr, "usage: dpdk-dma SUBMITTER_CPU ENGINE_CPU\n");
		return 2;
	}
	/* Whoever asks for passes may be killed in the middle of one. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	start_dpdk(argv[1], argv[2]);
	ns_per_tick = 1e9 / rte_get_tsc_hz();
	clock_ticks = clock_cost();
	patience_ticks = 2 * rte_get_tsc_hz();
	printf("{\"version\":\"%s\",\"clock_ns\":%.2f}\n", rte_version(), clock_ticks * ns_per_tick);
	fflush(stdout);
	while (fgets(line, sizeof(line), stdin) != NULL) {
		struct request request;

		if (!parse(line, &request)) {
			fprintf(stderr, "dpdk-dma: not understood: %s", line);
			return 2;
		}
		measure(&request);
	}
	rte_dma_close(DEVICE);
	rte_eal_cleanup();
	return 0;
}
