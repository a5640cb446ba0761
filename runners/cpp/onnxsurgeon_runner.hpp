// Trains what `onnxsurgeon export-trainer` wrote, with ONNX Runtime's C interface, which every build of it has.
#pragma once

#include <onnxruntime_c_api.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace onnxsurgeon {

/// What was given does not fit the trainer; the text says why.
struct TrainerError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Type {
  const char* name;  // in trainer.json
  const char* code;  // in files of safetensors
  ONNXTensorElementDataType kind;
  std::size_t size;
};

inline const Type& type_of(const std::string& name) {
  static const Type types[] = {
      {"float32", "F32", ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT, 4}, {"float64", "F64", ONNX_TENSOR_ELEMENT_DATA_TYPE_DOUBLE, 8},
      {"int32", "I32", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT32, 4},   {"int64", "I64", ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, 8},
      {"uint8", "U8", ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8, 1}};
  for (const Type& each : types)
    if (name == each.name || name == each.code) return each;
  throw TrainerError("no arrays of " + name + " here");
}

inline const Type& type_of(ONNXTensorElementDataType kind) {
  for (const char* name : {"float32", "float64", "int32", "int64", "uint8"})
    if (type_of(name).kind == kind) return type_of(name);
  throw TrainerError("an output is of a type that this runner lacks");
}

/// An array, row by row.
struct Array {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::vector<char> data;

  static std::size_t count(const std::vector<std::int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), std::size_t{1}, [](std::size_t a, std::int64_t b) { return a * std::size_t(b); });
  }
  template <class T>
  static Array of(const std::string& dtype, std::vector<std::int64_t> shape, const std::vector<T>& values) {
    if (type_of(dtype).size != sizeof(T) || count(shape) != values.size()) throw TrainerError("an array's values do not fit its shape");
    Array made{dtype, std::move(shape), std::vector<char>(values.size() * sizeof(T))};
    if (!values.empty()) std::memcpy(made.data.data(), values.data(), made.data.size());
    return made;
  }
  template <class T>
  const T* values() const { return reinterpret_cast<const T*>(data.data()); }
  std::size_t size() const { return count(shape); }
  double number(std::size_t i) const {
    return dtype == "float64" ? values<double>()[i] : dtype == "float32" ? values<float>()[i] : values<std::int32_t>()[i];
  }
  /// Rows from `first` to `last`.
  Array rows(std::size_t first, std::size_t last) const {
    std::vector<std::int64_t> cut = shape;
    cut[0] = std::int64_t(last - first);
    const std::size_t width = data.size() / std::size_t(shape[0]);
    return {dtype, cut, std::vector<char>(data.begin() + std::ptrdiff_t(first * width), data.begin() + std::ptrdiff_t(last * width))};
  }
};

using Arrays = std::map<std::string, Array>;

inline std::vector<char> bytes_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw TrainerError(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

/// Arrays and notes of a file of safetensors; nothing is believed of it that its length does not bear out.
inline std::pair<Arrays, std::map<std::string, std::string>> read_state(const std::string& path) {
  const std::vector<char> content = bytes_of(path);
  std::uint64_t length = 0;
  if (content.size() >= 8) std::memcpy(&length, content.data(), 8);
  constexpr std::uint64_t kLongest = 100000000;  // bytes of a header
  if (content.size() < 8 || length > std::min(std::uint64_t(content.size() - 8), kLongest)) throw TrainerError(path + ": is no file of safetensors");
  Arrays arrays;
  std::map<std::string, std::string> notes;
  try {
    const std::size_t begin = 8 + std::size_t(length), body = content.size() - begin;
    const nlohmann::json header = nlohmann::json::parse(content.begin() + 8, content.begin() + std::ptrdiff_t(begin));
    if (!header.is_object()) throw TrainerError("its header names nothing");
    std::vector<std::pair<std::uint64_t, std::uint64_t>> spans;
    for (const auto& [name, each] : header.items()) {
      if (name == "__metadata__") {
        notes = each.get<std::map<std::string, std::string>>();
        continue;
      }
      const Type& type = type_of(each.at("dtype").get<std::string>());
      const auto shape = each.at("shape").get<std::vector<std::int64_t>>();
      const auto from = each.at("data_offsets").at(0).get<std::uint64_t>(), to = each.at("data_offsets").at(1).get<std::uint64_t>();
      const bool negative = std::any_of(shape.begin(), shape.end(), [](std::int64_t size) { return size < 0; });
      if (negative || from > to || to > body || to - from != Array::count(shape) * type.size) throw TrainerError("'" + name + "' does not fit");
      spans.emplace_back(from, to);
      const auto at = content.begin() + std::ptrdiff_t(begin + from);
      arrays[name] = {type.name, shape, std::vector<char>(at, at + std::ptrdiff_t(to - from))};
    }
    std::sort(spans.begin(), spans.end());
    std::uint64_t end = 0;
    for (const auto& [from, to] : spans) {
      if (from != end) throw TrainerError("its arrays overlap, or leave gaps");
      end = to;
    }
    if (end != body) throw TrainerError("its arrays overlap, or leave gaps");
  } catch (const std::exception& error) {
    throw TrainerError(path + ": is no file of safetensors: " + error.what());
  }
  return {arrays, notes};
}

inline void write_state(const std::string& path, const Arrays& arrays, const std::map<std::string, std::string>& notes = {}) {
  nlohmann::json header;
  if (!notes.empty()) header["__metadata__"] = notes;
  std::size_t end = 0;
  for (const auto& [name, array] : arrays) {
    header[name] = {{"dtype", type_of(array.dtype).code}, {"shape", array.shape}, {"data_offsets", {end, end + array.data.size()}}};
    end += array.data.size();
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  std::ofstream file(path + ".tmp", std::ios::binary);
  file.write(reinterpret_cast<const char*>(&length), 8).write(text.data(), std::streamsize(text.size()));
  for (const auto& [name, array] : arrays) file.write(array.data.data(), std::streamsize(array.data.size()));
  file.close();
  if (!file || std::rename((path + ".tmp").c_str(), path.c_str()) != 0) throw TrainerError(path + ": cannot be written");
}

/// The order of an epoch's rows: the same in every runner.
inline std::vector<std::int32_t> order_of(std::uint32_t seed, std::uint32_t epoch, std::size_t count) {
  const auto mixed = [](std::uint32_t x) {
    x = (x ^ (x >> 16)) * 0x7feb352du;
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
  };
  const std::uint32_t start = mixed(epoch + mixed(seed));
  std::vector<std::int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  std::vector<std::uint32_t> keys(count);
  for (std::size_t i = 0; i < count; ++i) keys[i] = mixed(std::uint32_t(i) + start);
  std::sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) { return keys[std::size_t(a)] < keys[std::size_t(b)]; });
  return order;
}

/// What the learning rate of a step is multiplied by, the step being number `position` of `total`.
inline double rate_factor(const std::string& kind, long position, long total, long warmup = 0) {
  if (position < warmup) return double(position + 1) / double(warmup + 1);
  const double x = total > warmup ? std::min(double(position - warmup) / double(total - warmup), 1.0) : 0.0;
  const auto cosine = [](double at) { return 0.5 * (1 + std::cos(std::acos(-1.0) * at)); };
  if (kind == "constant") return 1;
  if (kind == "linear") return 1 - x;
  if (kind == "cosine") return cosine(x);
  if (kind == "step") return std::pow(0.1, (x >= 0.5) + (x >= 0.75));
  if (kind == "one-cycle")
    return x < 0.3 ? 1 / 25.0 + (1 - 1 / 25.0) * (1 - cosine(x / 0.3)) : 1 / 25e4 + (1 - 1 / 25e4) * cosine((x - 0.3) / 0.7);
  throw TrainerError("the schedule '" + kind + "' is unknown");
}

/// A folder that export-trainer wrote, and a state that is trained.
class Trainer {
 public:
  static constexpr std::size_t kChunk = 1024;  // rows of a run that does not train
  static constexpr std::size_t kRun = 256;     // steps of a run that does

  explicit Trainer(const std::string& folder, const std::string& state = "") : folder_(folder) {
    const std::vector<char> text = bytes_of(folder + "/trainer.json");
    description = nlohmann::json::parse(text.begin(), text.end());
    if (description.value("format", "") != "onnxsurgeon-trainer" || description.value("version", 0) != 1)
      throw TrainerError(folder + ": is no trainer of version 1");
    OrtEnv* env = nullptr;
    check(api()->CreateEnv(ORT_LOGGING_LEVEL_ERROR, "onnxsurgeon", &env));
    env_.reset(env);
    load(state.empty() ? folder + "/" + path_of("state") : state);
  }

  nlohmann::json description;
  Arrays state;
  long epoch = 0;

  /// Go on from the state in a file.
  void load(const std::string& path) {
    auto [arrays, notes] = read_state(path);
    Arrays found;
    for (const auto& each : description["state"]) {
      const std::string name = each["name"];
      const auto at = arrays.find(name);
      if (at == arrays.end()) throw TrainerError(path + ": lacks '" + name + "'");
      if (at->second.shape != each["shape"].get<std::vector<std::int64_t>>() || at->second.dtype != each["dtype"])
        throw TrainerError(path + ": '" + name + "' is of another shape or type");
      for (std::size_t i = 0; i < at->second.size(); ++i)
        if (!std::isfinite(at->second.number(i))) throw TrainerError(path + ": '" + name + "' holds values that are not finite: the training diverged");
      found[name] = std::move(at->second);
    }
    state = std::move(found);
    epoch = notes.count("epoch") ? std::stol(notes["epoch"]) : 0;
  }

  /// Write the state; `onnxsurgeon import-state` puts it into the model.
  void save(const std::string& path) const { write_state(path, state, {{"epoch", std::to_string(epoch)}}); }

  /// Rows by the model's inputs as train and evaluate take them: what features.onnx computes, where there is one.
  Arrays prepare(const Arrays& rows) {
    if (description["files"].contains("features")) return in_chunks("features", rows, {});
    Arrays found;
    for (const auto& each : description["rows"]) found[each["name"]] = rows.at(each["input"]);
    return found;
  }

  /// Train one epoch more on prepared rows and targets ("targets", "targets_1", …); returns the mean loss over its rows.
  /// `course` is how many epochs the schedule is for in all.
  double train(const Arrays& rows, const Arrays& targets, std::uint32_t seed, long course) {
    Arrays feeds = rows;
    feeds.insert(targets.begin(), targets.end());
    const std::size_t count = rows_of(feeds);
    const bool fixed = description["batch"]["fixed"];
    const std::size_t wanted = description["batch"]["size"], size = fixed ? wanted : std::min(wanted, count);
    const std::size_t full = count / size, rest = fixed ? 0 : count % size, steps = full + (rest > 0);
    if (full == 0) throw TrainerError("there are fewer rows than a batch has");
    const auto order = order_of(seed, std::uint32_t(epoch), count);
    const long warmup = std::lrint(description["schedule"]["warmup"].get<double>() * double(steps));
    const double rate = description["optimizer"]["learning_rate"];
    if (description.contains("dropout"))
      feeds[description["dropout"]["seed"]] = Array::of("int32", {}, std::vector<std::int32_t>{std::int32_t(seed & 0x7fffffffu)});
    const std::string next = description["next"], kind = description["schedule"]["kind"];
    Arrays now = state;
    double sum = 0;
    for (std::size_t done = 0; done < steps;) {
      const std::size_t run = done < full ? std::min(kRun, full - done) : 1, width = done < full ? size : rest;
      std::vector<float> rates(run);
      for (std::size_t i = 0; i < run; ++i)
        rates[i] = float(rate * rate_factor(kind, epoch * long(steps) + long(done + i), course * long(steps), warmup));
      const auto first = order.begin() + std::ptrdiff_t(done * size);
      feeds["batches"] = Array::of("int32", {std::int64_t(run), std::int64_t(width)}, std::vector<std::int32_t>(first, first + std::ptrdiff_t(run * width)));
      feeds["rates"] = Array::of("float32", {std::int64_t(run)}, rates);
      for (const auto& [name, array] : now) feeds[name] = array;
      Arrays found = this->run("train", feeds);
      for (auto& [name, array] : now) array = std::move(found.at(next + name));
      if (found.count("losses"))
        for (std::size_t i = 0; i < run; ++i) sum += found["losses"].number(i) * double(width);
      done += run;
    }
    state = std::move(now);
    ++epoch;
    return sum / double(full * size + rest);
  }

  /// Mean loss as "loss", and the metric of each head by the name of evaluate.onnx's output: accuracy, or R².
  std::map<std::string, double> evaluate(const Arrays& rows, const Arrays& targets) {
    Arrays feeds = rows;
    feeds.insert(targets.begin(), targets.end());
    const std::size_t count = rows_of(feeds);
    add_parameters(feeds);
    std::map<std::string, std::vector<double>> sums;
    for (std::size_t first = 0; first < count; first += kChunk) {
      std::vector<std::int32_t> numbers(std::min(kChunk, count - first));
      std::iota(numbers.begin(), numbers.end(), std::int32_t(first));
      feeds["numbers"] = Array::of("int32", {std::int64_t(numbers.size())}, numbers);
      for (const auto& [name, array] : run("evaluate", feeds)) {
        sums[name].resize(array.size());
        for (std::size_t i = 0; i < array.size(); ++i) sums[name][i] += array.number(i);
      }
    }
    std::map<std::string, double> result{{"loss", sums["loss"][0] / double(count)}};
    for (const auto& each : description["targets"]) {
      const std::string output = each["metric"]["output"];
      const bool r2 = each["metric"]["name"] == "r2";
      result[output] = r2 ? share_explained(targets.at(each["name"]), sums[output]) : sums[output][0] / (double(count) * each["metric"]["per_row"].get<double>());
    }
    return result;
  }

  /// The model's outputs for rows by its inputs.
  Arrays predict(const Arrays& rows) {
    Arrays parameters;
    add_parameters(parameters);
    return in_chunks("predict", rows, parameters);
  }

 private:
  static const OrtApi* api() {
    static const OrtApi* found = OrtGetApiBase()->GetApi(17 < ORT_API_VERSION ? 17 : ORT_API_VERSION);  // as of 1.17
    if (found == nullptr) throw TrainerError("ONNX Runtime is older than 1.17");
    return found;
  }
  static void check(OrtStatus* status) {
    if (status == nullptr) return;
    const std::string text = api()->GetErrorMessage(status);
    api()->ReleaseStatus(status);
    throw TrainerError(text);
  }
  struct Release {
    void operator()(OrtEnv* each) const { api()->ReleaseEnv(each); }
    void operator()(OrtSession* each) const { api()->ReleaseSession(each); }
    void operator()(OrtSessionOptions* each) const { api()->ReleaseSessionOptions(each); }
    void operator()(OrtMemoryInfo* each) const { api()->ReleaseMemoryInfo(each); }
    void operator()(OrtValue* each) const { api()->ReleaseValue(each); }
    void operator()(OrtTensorTypeAndShapeInfo* each) const { api()->ReleaseTensorTypeAndShapeInfo(each); }
  };
  template <class T>
  using Owned = std::unique_ptr<T, Release>;
  struct Session {
    Owned<OrtSession> session;
    std::vector<std::string> inputs, outputs;
  };

  std::string path_of(const std::string& file) const { return description["files"][file]["path"]; }

  static std::size_t rows_of(const Arrays& feeds) {
    std::size_t count = 0;
    for (const auto& [name, array] : feeds) {
      const std::size_t own = array.shape.empty() ? 0 : std::size_t(array.shape[0]);
      if (own == 0 || (count != 0 && own != count)) throw TrainerError("'" + name + "' has another number of rows, or none");
      count = own;
    }
    return count;
  }

  void add_parameters(Arrays& feeds) const {
    for (const auto& each : description["state"])
      if (each["kind"] == "parameter") feeds[each["name"]] = state.at(each["name"]);
  }

  static double share_explained(const Array& targets, const std::vector<double>& errors) {
    const std::size_t width = errors.size(), rows = targets.size() / width;
    double sum = 0;
    for (std::size_t column = 0; column < width; ++column) {
      double mean = 0, spread = 0, least = INFINITY, most = -INFINITY;
      for (std::size_t row = 0; row < rows; ++row) {
        const double value = targets.number(row * width + column);
        mean += value / double(rows), least = std::min(least, value), most = std::max(most, value);
      }
      for (std::size_t row = 0; row < rows; ++row) spread += std::pow(targets.number(row * width + column) - mean, 2);
      sum += most > least ? 1 - errors[column] / spread : errors[column] > 0 ? 0 : 1;
    }
    return sum / double(width);
  }

  /// A file's outputs for all rows, as many at a time as the user's model takes.
  Arrays in_chunks(const std::string& file, const Arrays& rows, const Arrays& more) {
    const auto& batch = description["inputs"][0]["batch"];
    const std::size_t count = rows_of(rows), step = batch.is_number() ? batch.get<std::size_t>() : batch == "none" ? 1 : kChunk;
    Arrays found;
    for (std::size_t first = 0; first < count; first += step) {
      const std::size_t last = std::min(first + step, count);
      Arrays feeds = more;
      for (const auto& [name, array] : rows) {
        Array piece = array.rows(first, last);
        if (batch.is_number())  // a fixed batch is filled up with the last row
          for (const Array end = array.rows(last - 1, last); std::size_t(piece.shape[0]) < step; ++piece.shape[0])
            piece.data.insert(piece.data.end(), end.data.begin(), end.data.end());
        if (batch == "none") piece.shape.erase(piece.shape.begin());
        feeds[name] = std::move(piece);
      }
      for (auto& [name, array] : run(file, feeds)) {
        if (batch == "none") array.shape.insert(array.shape.begin(), 1);
        const Array own = array.rows(0, last - first);
        Array& whole = found[name];
        if (whole.dtype.empty()) whole = {own.dtype, own.shape, {}}, whole.shape[0] = 0;
        whole.shape[0] += own.shape[0];
        whole.data.insert(whole.data.end(), own.data.begin(), own.data.end());
      }
    }
    return found;
  }

  Session& session_of(const std::string& file) {
    Session& made = sessions_[file];
    if (made.session) return made;
    OrtSessionOptions* options = nullptr;
    check(api()->CreateSessionOptions(&options));
    Owned<OrtSessionOptions> owned(options);
    check(api()->SetIntraOpNumThreads(options, 1));
    const std::vector<char> model = bytes_of(folder_ + "/" + path_of(file));
    OrtSession* session = nullptr;
    check(api()->CreateSessionFromArray(env_.get(), model.data(), model.size(), options, &session));
    made.session.reset(session);
    OrtAllocator* allocator = nullptr;
    check(api()->GetAllocatorWithDefaultOptions(&allocator));
    std::size_t inputs = 0, outputs = 0;
    check(api()->SessionGetInputCount(session, &inputs));
    check(api()->SessionGetOutputCount(session, &outputs));
    for (std::size_t i = 0; i < inputs + outputs; ++i) {
      char* name = nullptr;
      check(i < inputs ? api()->SessionGetInputName(session, i, allocator, &name) : api()->SessionGetOutputName(session, i - inputs, allocator, &name));
      (i < inputs ? made.inputs : made.outputs).emplace_back(name);
      check(api()->AllocatorFree(allocator, name));
    }
    return made;
  }

  Arrays run(const std::string& file, const Arrays& feeds) {
    Session& session = session_of(file);
    OrtMemoryInfo* memory = nullptr;
    check(api()->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
    Owned<OrtMemoryInfo> owned(memory);
    std::vector<Owned<OrtValue>> values;
    std::vector<const OrtValue*> given;
    std::vector<const char*> inputs, outputs;
    for (const std::string& name : session.inputs) {
      const auto at = feeds.find(name);
      if (at == feeds.end()) throw TrainerError("no array for the input '" + name + "'");
      const Array& array = at->second;
      OrtValue* value = nullptr;
      check(api()->CreateTensorWithDataAsOrtValue(memory, const_cast<char*>(array.data.data()), array.data.size(), array.shape.data(), array.shape.size(), type_of(array.dtype).kind, &value));
      values.emplace_back(value);
      given.push_back(value);
      inputs.push_back(name.c_str());
    }
    for (const std::string& name : session.outputs) outputs.push_back(name.c_str());
    std::vector<OrtValue*> raw(outputs.size(), nullptr);
    check(api()->Run(session.session.get(), nullptr, inputs.data(), given.data(), given.size(), outputs.data(), outputs.size(), raw.data()));
    for (OrtValue* each : raw) values.emplace_back(each);
    Arrays found;
    for (std::size_t i = 0; i < raw.size(); ++i) {
      OrtTensorTypeAndShapeInfo* info = nullptr;
      check(api()->GetTensorTypeAndShape(raw[i], &info));
      Owned<OrtTensorTypeAndShapeInfo> kept(info);
      ONNXTensorElementDataType kind;
      std::size_t rank = 0;
      check(api()->GetTensorElementType(info, &kind));
      check(api()->GetDimensionsCount(info, &rank));
      Array array{type_of(kind).name, std::vector<std::int64_t>(rank), {}};
      check(api()->GetDimensions(info, array.shape.data(), rank));
      void* data = nullptr;
      check(api()->GetTensorMutableData(raw[i], &data));
      array.data.assign(static_cast<char*>(data), static_cast<char*>(data) + array.size() * type_of(kind).size);
      found[session.outputs[i]] = std::move(array);
    }
    return found;
  }

  std::string folder_;
  Owned<OrtEnv> env_;
  std::map<std::string, Session> sessions_;
};

}  // namespace onnxsurgeon
