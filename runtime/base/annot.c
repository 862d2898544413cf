#include "runtime/base/annot.h"

struct rt_role rt_role_worker;
struct rt_role rt_role_disk;
struct rt_role rt_role_main;
