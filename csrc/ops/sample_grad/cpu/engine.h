// Forms every tile of every sample group and hands it to the sink. Include only from sample_grad_cpu.cpp,
// once per instruction set.
#pragma once

#include "common/arena.h"
#include "ops/sample_grad/cpu/form.h"
#include "ops/sample_grad/cpu/ghost.h"
#include "ops/sample_grad/cpu/operands.h"
#include "ops/sample_grad/cpu/plan.h"
#include "ops/sample_grad/cpu/rank_one.h"
#include "ops/sample_grad/cpu/sinks.h"
#include "ops/sample_grad/cpu/write.h"

namespace pynas::cpu::PYNAS_ISA_NS {
namespace {

template <class T>
class Engine {
 public:
  Engine(const SampleGradParams& params, int threads)
      : plan_(make_plan<T>(params, threads, moment_rows(params.moments))),
        operands_(plan_),
        rank_one_(plan_),
        rank_one_used_(RankOne<T>::fits(plan_)),
        ghost_(plan_),
        ghost_used_(Ghost::fits(plan_)),
        threads_(threads),
        mask_(params.moments),
        rows_(moment_rows(params.moments)),
        add_(moments_for<T>(params.moments)) {
    arrange(params.workspace);
  }

  int64_t workspace_bytes() const { return workspace_bytes_; }

  void run(const Parallel& parallel) {
    if (plan_.sample_groups == 0 || plan_.vectors() == 0) {
      write_zeros();
    } else if (rank_one_used_) {
      rank_one_.run(parallel);
      if (plan_.p.with_bias) operands_.sum_bias(0, plan_.p.batch, bias_);
    } else if (ghost_used_) {
      by_ghosts(parallel);
      if (plan_.p.with_bias) operands_.sum_bias(0, plan_.p.batch, bias_);
    } else {
      switch (plan_.split) {
        case Split::kSamples:
          by_samples(parallel);
          break;
        case Split::kWithinGroup:
          within_groups(parallel);
          break;
        case Split::kWeights:
          by_weights(parallel);
          break;
      }
    }
    if (plan_.p.with_bias) finish_bias(parallel);
  }

 private:
  static constexpr int kL = kLanes<T>;
  static constexpr int64_t kSumBytes = 256 << 10;  // of the sums that a thread works on under kWeights

  bool moments() const { return plan_.p.sink == SampleGradSink::kMoments; }
  bool gram() const { return plan_.p.sink == SampleGradSink::kGram; }
  int64_t groups() const { return plan_.sample_groups; }
  int64_t product_count() const { return moments() ? 0 : gram() ? groups() * groups() : groups(); }

  // What a thread keeps to itself.
  struct Private {
    T* x = nullptr;  // packed samples
    T* d = nullptr;
    T* gradients = nullptr;  // [group][vector][lane] of a batch of tiles; of one bundle under kWithinGroup
    T* sums = nullptr;       // moments, or the part of one group's gradient under kWithinGroup
    T* scratch = nullptr;
    double* products = nullptr;  // norms [G] or gram [G, G]
  };

  int64_t bundles_per_task() const {
    const int64_t bundle = plan_.max_bundle_vectors() * kL * rows_ * static_cast<int64_t>(sizeof(T));
    const int64_t fit = most(1, kSumBytes / most(bundle, 1));
    return most(1, least(fit, plan_.bundles() / (4 * threads_)));
  }
  int64_t private_vectors() const {
    if (plan_.split != Split::kWeights) return plan_.vectors();
    return bundles_per_task() * plan_.max_bundle_vectors();
  }
  // Groups whose tiles are formed before the sink sees them.
  int64_t block_groups() const {
    if (gram()) return groups();
    if (plan_.split == Split::kWeights) return 4;
    return most(1, plan_.block_samples / most(plan_.group_size, 1));
  }
  int64_t block_samples() const {
    return plan_.split == Split::kWithinGroup ? plan_.block_samples : block_groups() * plan_.group_size;
  }

  void arrange(void* workspace) {
    Arena arena(workspace);
    bias_ = arena.template take<T>(plan_.p.with_bias ? plan_.p.batch * plan_.padded_out_channels() : 0);
    bias_sums_ = arena.template take<T>(plan_.p.with_bias ? plan_.padded_out_channels() * rows_ : 0);
    if (rank_one_used_) {
      rank_one_.arrange(arena);
      workspace_bytes_ = arena.bytes();
      return;
    }
    if (ghost_used_) {
      ghost_.arrange(arena);
      private_ = arena.template take<Private>(threads_);
      for (int t = 0; t < threads_; ++t) {
        double* products = arena.template take<double>(product_count());
        if (workspace != nullptr) private_[t].products = products;
      }
      workspace_bytes_ = arena.bytes();
      return;
    }
    const bool within = plan_.split == Split::kWithinGroup, all = plan_.split == Split::kWeights;
    const int64_t packed = all ? plan_.p.batch : block_samples();
    if (all) {
      all_x_ = arena.template take<T>(plan_.x.direct ? 0 : packed * plan_.x.sample);
      all_d_ = arena.template take<T>(plan_.d.direct ? 0 : packed * plan_.d.sample);
    }
    total_ = arena.template take<T>(within && moments() ? plan_.vectors() * kL * rows_ : 0);
    private_ = arena.template take<Private>(threads_);
    counts_ = arena.template take<int64_t>(threads_);
    sums_ = arena.template take<T*>(threads_);
    for (int t = 0; t < threads_; ++t) {
      Private mine;
      if (!all) {
        mine.x = arena.template take<T>(plan_.x.direct ? 0 : packed * plan_.x.sample);
        mine.d = arena.template take<T>(plan_.d.direct ? 0 : packed * plan_.d.sample);
      }
      mine.gradients =
          arena.template take<T>((within ? 1 : block_groups()) *
                                 (within ? plan_.max_bundle_vectors() : plan_.max_batch_vectors()) * kL);
      const int64_t rows = within ? 1 : moments() ? rows_ : 0;
      mine.sums = arena.template take<T>(private_vectors() * kL * rows);
      mine.scratch = arena.template take<T>(moments() ? (kNumMoments + 1) * kL * plan_.taps + kL : 0);
      mine.products = arena.template take<double>(product_count());
      if (workspace != nullptr) {
        private_[t] = mine;
        sums_[t] = mine.sums;
        counts_[t] = 0;
      }
    }
    workspace_bytes_ = arena.bytes();
  }

  // Runs body(t) for every thread's share t.
  template <class F>
  void each_thread(const Parallel& parallel, F&& body) const {
    parallel(threads_, 1, [&](int64_t begin, int64_t end) {
      for (int64_t t = begin; t < end; ++t) body(t);
    });
  }

  static void clear(T* values, int64_t n) {
    // An empty tensor has no address.
    if (n > 0) __builtin_memset(values, 0, static_cast<size_t>(n) * sizeof(T));
  }

  // Forms the tiles of bundles [begin, end) for `count` groups, whose samples begin at x and d: for each
  // batch of tiles gradients[g][v][lane], then sink(first vector, vectors). A batch ends where the input
  // channels change.
  template <class Sink>
  void form_bundles(int64_t begin, int64_t end, const T* x, const T* d, int64_t count, T* gradients,
                    Sink&& sink) const {
    const int64_t tiles = plan_.tiles();
    ReadyTile<T> ready[kMaxBatch];
    int64_t n = 0, vectors = 0;
    for (int64_t i = begin; i < end; ++i) {
      const Bundle b = plan_.bundle(i);
      const bool last = i + 1 == end || b.out_block + 1 == plan_.out_blocks;
      for (int64_t k = 0; k < tiles; ++k) {
        ready[n] = make_ready(plan_, b, plan_.tile(b, k), x, d);
        vectors += ready[n++].vectors;
        if (n < plan_.tile_batch && !(last && k + 1 == tiles)) continue;
        for (int64_t g = 0; g < count; ++g) {
          T* to = gradients + g * vectors * kL;
          for (int64_t j = 0; j < n; to += ready[j++].vectors * kL) {
            form(plan_, ready[j], g * plan_.group_size, plan_.group_size, to);
            if (!moments()) clear_slack(plan_, ready[j], to);
          }
        }
        sink(ready[0].first_vector, vectors);
        n = vectors = 0;
      }
    }
  }

  void clear_products(const Private& mine) const {
    if (moments()) return;
    __builtin_memset(mine.products, 0, static_cast<size_t>(product_count()) * sizeof(double));
  }

  void by_ghosts(const Parallel& parallel) {
    ghost_.pack(parallel);
    each_thread(parallel, [&](int64_t t) {
      clear_products(private_[t]);
      ghost_.add_share(threads_, t, private_[t].products);
    });
    finish(parallel, {});
  }

  void by_samples(const Parallel& parallel) {
    each_thread(parallel, [&](int64_t t) {
      const Private& mine = private_[t];
      const Range range = part(groups(), threads_, t);
      counts_[t] = range.size();
      if (moments()) clear(mine.sums, plan_.vectors() * kL * rows_);
      clear_products(mine);
      for (int64_t g = range.begin; g < range.end;) {
        const int64_t n = least(block_groups(), range.end - g), seen = g - range.begin;
        const T *x, *d;
        operands_.pack(g * plan_.group_size, n * plan_.group_size, mine.x, mine.d, bias_, x, d);
        form_bundles(0, plan_.bundles(), x, d, n, mine.gradients, [&](int64_t first, int64_t vectors) {
          if (moments()) return add_(mine.gradients, n, vectors, seen, mine.sums + first * kL * rows_);
          add_norms(mine, g, n, vectors);
        });
        g += n;
      }
    });
    finish(parallel, {sums_, counts_, threads_});
  }

  void within_groups(const Parallel& parallel) {
    if (moments()) clear(total_, plan_.vectors() * kL * rows_);
    const AddMoments<T> add_part = moments_for<T>(kMomentSum);
    each_thread(parallel, [&](int64_t t) { clear_products(private_[t]); });
    for (int64_t g = 0; g < groups(); ++g) {
      each_thread(parallel, [&](int64_t t) {
        const Private& mine = private_[t];
        const Range range = part(plan_.group_size, threads_, t);
        clear(mine.sums, plan_.vectors() * kL);
        for (int64_t s = range.begin; s < range.end;) {
          const int64_t n = least(plan_.block_samples, range.end - s);
          const T *x, *d;
          operands_.pack(g * plan_.group_size + s, n, mine.x, mine.d, bias_, x, d);
          for (int64_t i = 0; i < plan_.bundles(); ++i) {
            const Bundle b = plan_.bundle(i);
            for (int64_t k = 0; k < plan_.tiles(); ++k) {
              const ReadyTile<T> tile = make_ready(plan_, b, plan_.tile(b, k), x, d);
              form(plan_, tile, 0, n, mine.gradients);
              if (!moments()) clear_slack(plan_, tile, mine.gradients);
              add_part(mine.gradients, 1, tile.vectors, 0, mine.sums + tile.first_vector * kL);
            }
          }
          s += n;
        }
      });
      each_thread(parallel, [&](int64_t t) { finish_group(g, t); });
    }
    T* sums[] = {total_};
    const int64_t counts[] = {groups()};
    finish(parallel, {sums, counts, 1});
  }

  // Adds up the threads' parts of group g's gradient, and gives thread t's share of the weights to the sink.
  void finish_group(int64_t g, int64_t t) const {
    const Range bundles = part(plan_.bundles(), threads_, t);
    const Private& mine = private_[t];
    for (int64_t i = bundles.begin; i < bundles.end; ++i) {
      const Bundle b = plan_.bundle(i);
      const int64_t vectors = plan_.bundle_vectors(b);
      for (int64_t v = 0; v < vectors; ++v) {
        const int64_t offset = (b.first_vector + v) * kL;
        Vec<T> total = load(sums_[0] + offset);
        for (int k = 1; k < threads_; ++k) total += load(sums_[k] + offset);
        store(mine.gradients + v * kL, total);
      }
      if (moments())
        add_(mine.gradients, 1, vectors, g, total_ + b.first_vector * kL * rows_);
      else
        mine.products[g] += squared_norm(mine.gradients, vectors);
    }
  }

  void by_weights(const Parallel& parallel) {
    const T *x = nullptr, *d = nullptr;
    parallel(plan_.p.batch, 1, [&](int64_t begin, int64_t end) {
      const T *from_x, *from_d;
      operands_.pack(begin, end - begin, all_x_ + begin * plan_.x.sample, all_d_ + begin * plan_.d.sample,
                     bias_, from_x, from_d);
    });
    operands_.pack(0, 0, all_x_, all_d_, bias_, x, d);
    const int64_t step = bundles_per_task(), tasks = ceil_div(plan_.bundles(), step);
    each_thread(parallel, [&](int64_t t) {
      const Private& mine = private_[t];
      clear_products(mine);
      const Range range = part(tasks, threads_, t);
      for (int64_t task = range.begin; task < range.end; ++task) {
        work_on(mine, task * step, least((task + 1) * step, plan_.bundles()), x, d);
      }
    });
    if (!moments()) finish(parallel, {});
  }

  // Takes all samples through the tiles of bundles [begin, end), and writes the moments.
  void work_on(const Private& mine, int64_t begin, int64_t end, const T* x, const T* d) const {
    const int64_t origin = plan_.bundle(begin).first_vector;
    if (moments()) {
      const Bundle last = plan_.bundle(end - 1);
      clear(mine.sums, (last.first_vector + plan_.bundle_vectors(last) - origin) * kL * rows_);
    }
    for (int64_t g = 0; g < groups();) {
      const int64_t n = least(block_groups(), groups() - g), first = g * plan_.group_size;
      form_bundles(begin, end, x + first * plan_.x.sample, d + first * plan_.d.sample, n, mine.gradients,
                   [&](int64_t vector, int64_t vectors) {
                     if (gram()) return add_gram(mine.gradients, n, vectors, mine.products);
                     if (!moments()) return add_norms(mine, g, n, vectors);
                     add_(mine.gradients, n, vectors, g, mine.sums + (vector - origin) * kL * rows_);
                   });
      g += n;
    }
    if (!moments()) return;
    T* sums[] = {mine.sums};
    const int64_t counts[] = {groups()};
    for (int64_t i = begin; i < end; ++i) {
      const Bundle b = plan_.bundle(i);
      write_bundle<T>(plan_, b, {sums, counts, 1}, b.first_vector - origin, true, mine.scratch);
    }
    finish_streaming();
  }

  void add_norms(const Private& mine, int64_t g, int64_t n, int64_t vectors) const {
    for (int64_t i = 0; i < n; ++i) {
      mine.products[g + i] += squared_norm(mine.gradients + i * vectors * kL, vectors);
    }
  }

  void finish(const Parallel& parallel, Partials<T> partials) const {
    T* result = static_cast<T*>(plan_.p.weight);
    if (moments()) {
      each_thread(parallel, [&](int64_t t) {
        const Range range = part(plan_.bundles(), threads_, t);
        for (int64_t i = range.begin; i < range.end; ++i) {
          const Bundle b = plan_.bundle(i);
          write_bundle(plan_, b, partials, b.first_vector, false, private_[t].scratch);
        }
      });
      return;
    }
    const int64_t G = groups();
    for (int64_t i = 0; i < product_count(); ++i) {
      // Of a Gram matrix the lower triangle alone is summed.
      const int64_t from = gram() && i % G > i / G ? i % G * G + i / G : i;
      double total = 0;
      for (int t = 0; t < threads_; ++t) total += private_[t].products[from];
      result[i] = static_cast<T>(total);
    }
  }

  void write_zeros() {
    const SampleGradParams& p = plan_.p;
    const int64_t weights = p.out_channels * p.group_channels() * p.kernel[0] * p.kernel[1], G = groups();
    const int64_t n = moments() ? count_moments(mask_) * weights : gram() ? G * G : G;
    clear(static_cast<T*>(p.weight), n);
    if (p.with_bias) operands_.sum_bias(0, p.batch, bias_);
  }

  // Sums the bias gradients of samples, bias_ [batch, padded out_channels], over each sample group, and hands
  // them to the sink.
  void finish_bias(const Parallel& parallel) const {
    const int64_t size = plan_.padded_out_channels(), G = groups();
    for (int64_t g = 0; g < G; ++g) {  // in place: row g is read before it is written
      T* row = bias_ + g * size;
      for (int64_t o = 0; o < size; ++o) {
        T total = bias_[g * plan_.group_size * size + o];
        for (int64_t i = 1; i < plan_.group_size; ++i) total += bias_[(g * plan_.group_size + i) * size + o];
        row[o] = total;
      }
    }
    if (moments()) return finish_bias_moments();
    T* result = static_cast<T*>(plan_.p.weight);
    parallel(G, 1, [&](int64_t begin, int64_t end) {
      for (int64_t g = begin; g < end; ++g) {
        for (int64_t h = gram() ? 0 : g; h < (gram() ? G : g + 1); ++h) {
          double product = 0;
          for (int64_t o = 0; o < size; ++o)
            product += static_cast<double>(bias_[g * size + o] * bias_[h * size + o]);
          T& at = result[gram() ? g * G + h : g];
          at = static_cast<T>(static_cast<double>(at) + product);
        }
      }
    });
  }

  void finish_bias_moments() const {
    const int64_t size = plan_.padded_out_channels(), channels = plan_.p.out_channels;
    clear(bias_sums_, size * rows_);
    add_(bias_, groups(), size / kL, 0, bias_sums_);
    T* sums[] = {bias_sums_};
    const int64_t counts[] = {groups()};
    T rows[kNumMoments][kL];
    for (int64_t v = 0; v < size / kL; ++v) {
      merge_vector<T>({sums, counts, 1}, mask_, v, rows[0], kL);
      for (int k = 0; k < count_moments(mask_); ++k) {
        T* to = static_cast<T*>(plan_.p.bias) + k * channels + v * kL;
        for (int64_t lane = 0; lane < least(kL, channels - v * kL); ++lane) to[lane] = rows[k][lane];
      }
    }
  }

  Plan plan_;
  Operands<T> operands_;
  RankOne<T> rank_one_;
  bool rank_one_used_;
  Ghost ghost_;
  bool ghost_used_;
  int threads_;
  uint32_t mask_;
  int64_t rows_;
  AddMoments<T> add_;
  int64_t workspace_bytes_ = 0;
  T* all_x_ = nullptr;
  T* all_d_ = nullptr;
  T* bias_ = nullptr;  // [batch, padded out_channels]
  T* bias_sums_ = nullptr;
  T* total_ = nullptr;  // moments under kWithinGroup
  Private* private_ = nullptr;
  int64_t* counts_ = nullptr;
  T** sums_ = nullptr;
};

}  // namespace
}  // namespace pynas::cpu::PYNAS_ISA_NS
